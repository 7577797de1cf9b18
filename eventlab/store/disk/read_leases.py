"""Leases: while one is held, no file is removed that its reader may still open.

Compaction names new files and drops old ones in one transaction, at the *generation* of its last new file. Who knows a
generation at or above that reads the new files; who knows an older one may be reading those that were dropped. So each
reader leases the generation it knows for as long as an iteration lasts, and what was dropped at generation ``d`` is
removed only where no lease is on a generation below ``d``. A reader leases first and looks afterwards: a lease on an
older generation than it then reads only protects more.

In a directory a lease is a shared lock on byte ``1 + generation`` of the file `lock`, each on a descriptor of its own.
The system takes it back when the process ends, however that happens: a lease cannot be left behind. (Byte 0 is the
writers'; see `exclusive.py`.)
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, Self, TypeVar

from eventlab.errors import StoreError
from eventlab.store.disk import range_locks as ofd

ItemT = TypeVar("ItemT")


class Lease:
    """Held until released, or collected."""

    _give_back: Callable[[], None] | None = None
    """Set here too, for the lease that an interrupt leaves without its constructor."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back = give_back

    def release(self) -> None:
        """Give it back; a second time does nothing."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


def leased(lease: Lease, begin: Callable[[], Iterator[ItemT]]) -> Iterator[ItemT]:
    """Begin at once; the lease is held until the items are exhausted, closed or collected."""
    try:
        return _held(lease, begin())
    except BaseException:
        lease.release()
        raise


def _held(lease: Lease, items: Iterator[ItemT]) -> Iterator[ItemT]:
    with lease:
        yield from items


class Leases(Protocol):
    """The leases on a store."""

    def hold(self, generation: int) -> Lease:
        """Protect every file that a reader who knows this generation can know of."""

    def is_leased(self, dropped: int) -> bool:
        """Whether a reader may be reading what was dropped at a generation."""


class FileLeases:
    """Leases that all processes see."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _open(self) -> int | None:
        """A descriptor; None where there is no such file and none can be made, so that nobody can write either."""
        for flags in (os.O_RDONLY, os.O_RDONLY | os.O_CREAT):  # a copy of a store may lack the file
            try:
                return os.open(self._path, flags | os.O_CLOEXEC, 0o644)
            except FileNotFoundError:
                continue
            except OSError as error:
                if not os.access(self._path if self._path.exists() else self._path.parent, os.W_OK):
                    return None
                raise self._failed(error) from error
        return None

    def hold(self, generation: int) -> Lease:
        descriptor = self._open()
        if descriptor is None:
            return Lease(lambda: None)
        byte, owner = 1 + generation, os.getpid()
        try:
            ofd.try_shared(descriptor, byte)  # cannot fail for another's sake: nobody locks these bytes alone
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                raise self._failed(error) from error
            raise

        def give_back() -> None:
            # A child that was forked meanwhile has a copy of the descriptor: closing this one alone would leave the
            # lock with it. The child must not unlock what is its parent's.
            try:
                if os.getpid() == owner:
                    ofd.unlock(descriptor, byte)
            finally:
                os.close(descriptor)

        return Lease(give_back)

    def is_leased(self, dropped: int) -> bool:
        descriptor = self._open()
        if descriptor is None:
            return False
        try:
            return ofd.is_locked(descriptor, 1, dropped)
        finally:
            os.close(descriptor)

    def _failed(self, error: OSError) -> StoreError:
        return StoreError(
            f"{self._path.parent}: its files cannot be protected while they are read",
            got=str(error),
            hint="Close iterators that are no longer needed, or raise the limit of open files.",
        )


class MemoryLeases:
    """Leases of a store that no other process has."""

    def __init__(self) -> None:
        # Single operations on a dictionary need no lock, which a collector that runs at any moment could meet taken.
        self._held: dict[int, int] = {}
        self._numbers = itertools.count()

    def hold(self, generation: int) -> Lease:
        number = next(self._numbers)
        self._held[number] = generation

        def give_back() -> None:
            del self._held[number]

        return Lease(give_back)

    def is_leased(self, dropped: int) -> bool:
        return any(generation < dropped for generation in list(self._held.values()))
