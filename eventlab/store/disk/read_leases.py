"""Leases: while one is held, no file is removed that its reader may still open.

Compaction adds new files to the catalog and drops old ones in one transaction, at the *generation* of its last new
file. A reader that knows this generation or a later one reads the new files; one that knows an older generation may
still read the dropped files. So each reader leases the generation that it knows as long as an iteration lasts, and
files dropped at generation ``d`` are removed only if no lease is on a generation below ``d``. A reader first takes the
lease and then refreshes what it knows: a lease on an older generation only protects more.

In a directory a lease is a shared lock on byte ``1 + generation`` of the file `lock`, each on a separate descriptor.
The system releases it when the process ends, even if it is killed: no lease is left behind. (Byte 0 is the writers'
lock; see `writer_lock.py`.)
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self, TypeVar

from eventlab.errors import StoreError
from eventlab.store.disk import range_locks as ofd

ItemT = TypeVar("ItemT")


class Lease:
    """Held until it is released or collected."""

    _release: Callable[[], None] | None = None
    """Set here too, for a lease whose constructor an interrupt ended."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release

    def release(self) -> None:
        """Release it; a second call does nothing."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        if self._release is not None:
            self.release()


def leased(leases: Leases, generation: int, begin: Callable[[], Iterator[ItemT]]) -> Iterator[ItemT]:
    """Begin an iteration at once, under a lease that is held until it is exhausted, closed or collected."""
    lease = leases.hold(generation)
    try:
        return _while_leased(lease, begin())
    except BaseException:
        lease.release()
        raise


def _while_leased(lease: Lease, items: Iterator[ItemT]) -> Iterator[ItemT]:
    with lease:
        yield from items


class FileLeases:
    """Leases that every process sees."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _open(self) -> int | None:
        """A descriptor; None if the file is missing and cannot be made, as then no process can write either."""
        try:
            return os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)  # a copy of a store may lack it
        except OSError as error:
            if not os.access(self._path if self._path.exists() else self._path.parent, os.W_OK):
                return None
            raise self._failed(error) from error

    def hold(self, generation: int) -> Lease:
        """Protect every file that a reader of this generation can know."""
        descriptor = self._open()
        if descriptor is None:
            return Lease(lambda: None)
        byte, owner = 1 + generation, os.getpid()
        try:
            ofd.try_lock(descriptor, byte, shared=True)  # succeeds: no process locks these bytes exclusively
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                raise self._failed(error) from error
            raise

        def release() -> None:
            # A forked child has a copy of the descriptor, which would keep the lock if this one were only closed. The
            # child must not release its parent's lock.
            try:
                if os.getpid() == owner:
                    ofd.unlock(descriptor, byte)
            finally:
                os.close(descriptor)

        return Lease(release)

    def is_leased(self, dropped: int) -> bool:
        """Whether a reader may still open a file that was dropped at this generation."""
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
    """Leases of a store that no other process can open."""

    def __init__(self) -> None:
        # Single operations on a dictionary need no lock; a garbage collection in between could deadlock on one.
        self._held: dict[int, int] = {}
        self._numbers = itertools.count()

    def hold(self, generation: int) -> Lease:
        number = next(self._numbers)
        self._held[number] = generation

        def release() -> None:
            del self._held[number]

        return Lease(release)

    def is_leased(self, dropped: int) -> bool:
        return any(generation < dropped for generation in list(self._held.values()))


Leases = FileLeases | MemoryLeases
"""The leases on a store."""
