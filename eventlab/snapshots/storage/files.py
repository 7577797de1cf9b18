"""Where snapshots lie: one growing file a reducer, in the store's folder or in memory."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from eventlab.errors import ReadOnlyStore, StoreError, StoreFull
from eventlab.store.disk import operations as disk
from eventlab.store.disk import range_locks as ofd

_NAME = re.compile(r"[0-9a-f]{32}\.snapshots")

_LOCKED = 1 << 62
"""The byte whose lock is the right to change a file: past all content, for locks keep nobody from reading."""


class Writing(Protocol):
    """The right to change a file."""

    @property
    def size(self) -> int: ...

    def append(self, content: bytes, at: int) -> None:
        """Put bytes at a place, durably, and cut what came after it; nothing is changed where that fails."""

    def replace(self, content: bytes) -> None:
        """Other content instead, all at once."""


class Reading(Protocol):
    """A file held open: others may add to it, but what takes its name afterwards is another one."""

    def state(self) -> tuple[int, int]: ...

    def read(self, offset: int, length: int) -> bytes:
        """Bytes at a place, fewer where the file ends."""

    def changing(self) -> bool:
        """Whether somebody has the right to change it just now."""


class Files(Protocol):
    """Files by name. A file's state is (which one, its size): it tells whether others changed or replaced it.

    Which one it is, is certain only while it is held open: a number may be given again.
    """

    @property
    def read_only(self) -> bool: ...

    def names(self) -> list[str]: ...

    def state(self, name: str) -> tuple[int, int] | None:
        """None where there is no such file."""

    def opened(self, name: str) -> Reading | None:
        """None where there is no such file."""

    @contextmanager
    def writing(self, name: str) -> Iterator[Writing]:
        """Keep others from changing a file, which is made if need be."""

    def remove(self, name: str) -> None: ...


class _MemoryFile:
    def __init__(self) -> None:
        self.content = bytearray()

    @property
    def size(self) -> int:
        return len(self.content)

    def append(self, content: bytes, at: int) -> None:
        self.content[at:] = content

    def replace(self, content: bytes) -> None:
        self.content = bytearray(content)


class _MemoryReading:
    def __init__(self, content: bytearray) -> None:
        self._content = content

    def state(self) -> tuple[int, int]:
        return id(self._content), len(self._content)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._content[offset : offset + length])

    def changing(self) -> bool:
        return False


class MemoryFiles:
    """For stores in memory."""

    read_only = False

    def __init__(self) -> None:
        self._files: dict[str, _MemoryFile] = {}

    def names(self) -> list[str]:
        return sorted(self._files)

    def state(self, name: str) -> tuple[int, int] | None:
        file = self._files.get(name)
        return None if file is None else (id(file.content), file.size)

    def opened(self, name: str) -> Reading | None:
        file = self._files.get(name)
        return None if file is None else _MemoryReading(file.content)

    @contextmanager
    def writing(self, name: str) -> Iterator[Writing]:
        yield self._files.setdefault(name, _MemoryFile())

    def remove(self, name: str) -> None:
        self._files.pop(name, None)


class _DirectoryFile:
    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    @property
    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def append(self, content: bytes, at: int) -> None:
        try:
            if self.size > at:
                disk.truncate(self._descriptor, at)
            disk.write_at(self._descriptor, content, at)
            disk.sync_content(self._descriptor)
        except OSError as error:
            with suppress(OSError):
                disk.truncate(self._descriptor, at)
            raise _not_written(error) from error

    def replace(self, content: bytes) -> None:
        beside = self._path.with_suffix(".part")
        try:
            descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                disk.write_at(descriptor, content, 0)
                disk.sync(descriptor)
            finally:
                os.close(descriptor)
            disk.rename(beside, self._path)
        except OSError as error:
            with suppress(OSError):
                disk.remove(beside)
            raise _not_written(error) from error


class _DirectoryReading:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __del__(self) -> None:
        os.close(self._descriptor)

    def state(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_ino, found.st_size

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def changing(self) -> bool:
        return ofd.is_locked(self._descriptor, _LOCKED)


class DirectoryFiles:
    """Files in one folder.

    They are read at their places rather than mapped: a file that somebody cuts while it is mapped ends the process at
    the next look. A copy of what is read costs little: 2 of the 20 microseconds that a state of 16 KB takes.
    """

    def __init__(self, directory: Path, *, read_only: bool) -> None:
        self._directory, self.read_only = directory, read_only

    def names(self) -> list[str]:
        if not self._directory.is_dir():
            return []
        return sorted(file.name for file in self._directory.iterdir() if _NAME.fullmatch(file.name))

    def state(self, name: str) -> tuple[int, int] | None:
        try:
            # At every read, where to join paths takes longer than to look.
            found = os.stat(f"{self._directory}/{name}")  # noqa: PTH116
        except OSError:
            return None
        return found.st_ino, found.st_size

    def opened(self, name: str) -> Reading | None:
        try:
            return _DirectoryReading(os.open(self._directory / name, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            return None

    @contextmanager
    def writing(self, name: str) -> Iterator[Writing]:
        if self.read_only:
            raise ReadOnlyStore("snapshots cannot be made in a store opened to be read")
        path = self._directory / name
        try:
            descriptor = self._locked(path)
        except OSError as error:
            raise _not_written(error) from error
        try:
            yield _DirectoryFile(path, descriptor)
        finally:
            os.close(descriptor)

    def _locked(self, path: Path) -> int:
        """A descriptor that has the right to change the file of this name."""
        while True:
            disk.make_directory(self._directory)
            made = not path.exists()
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                ofd.wait_exclusive(descriptor, _LOCKED)
                if made:
                    disk.sync_directory(self._directory)
                if os.fstat(descriptor).st_ino == (self.state(path.name) or (0, 0))[0]:
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # while this one waited, the file was replaced

    def remove(self, name: str) -> None:
        if self.read_only:
            raise ReadOnlyStore("snapshots cannot be dropped in a store opened to be read")
        try:
            disk.remove(self._directory / name)
        except OSError as error:
            raise StoreError("snapshots could not be removed", got=str(error), hint="Allow writing there.") from error


def _not_written(error: OSError) -> StoreFull:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    hint = "Free some space; answers come from the events meanwhile." if full else None
    return StoreFull("a snapshot could not be written", got=str(error), hint=hint or "Allow writing there.")
