"""The files of snapshots: one per reducer, which grows, in the store's folder or in memory.

Whole files go through the storage protocol. Appending does not: a file for each build costs three times as much time to
write, and every read would have to list the folder to find new ones (`docs/decisions/0037`).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from eventlab.errors import ReadOnlyStore, StoreError, StoreFull
from eventlab.storage import operations as disk
from eventlab.storage.local import LocalStorage
from eventlab.store.disk import range_locks as ofd

_NAME = re.compile(r"[0-9a-f]{32}\.snapshots")

_LOCKED = 1 << 62
"""The byte whose lock is the right to change a file. It lies after all content, so that no reader waits for it."""


class _FileInMemory:
    """A file as it is found and as it is locked."""

    def __init__(self, files: dict[str, bytearray], name: str) -> None:
        self._files, self._name = files, name
        self._content = files[name]

    def state(self) -> tuple[int, int]:
        return id(self._content), len(self._content)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._content[offset : offset + length])

    def changing(self) -> bool:
        return False

    def append(self, content: bytes, at: int) -> None:
        self._content[at:] = content

    def replace(self, content: bytes) -> None:
        self._files[self._name] = bytearray(content)


class MemoryFiles:
    """Files of a store in memory, with the methods of `DirectoryFiles`."""

    read_only = False

    def __init__(self) -> None:
        self._files: dict[str, bytearray] = {}

    def names(self) -> list[str]:
        return sorted(self._files)

    def state(self, name: str) -> tuple[int, int] | None:
        file = self.opened(name)
        return None if file is None else file.state()

    def opened(self, name: str) -> _FileInMemory | None:
        return _FileInMemory(self._files, name) if name in self._files else None

    @contextmanager
    def writing(self, name: str) -> Iterator[_FileInMemory]:
        self._files.setdefault(name, bytearray())
        yield _FileInMemory(self._files, name)

    def remove(self, name: str) -> None:
        self._files.pop(name, None)


class _FileOnDisk:
    """A file that is open. Others may add to it; a file that replaces it is another one."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __del__(self) -> None:
        os.close(self._descriptor)

    def state(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_ino, found.st_size

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes, fewer where the file ends."""
        return os.pread(self._descriptor, length, offset)

    def changing(self) -> bool:
        """Whether another process has the right to change it now."""
        return ofd.is_locked(self._descriptor, _LOCKED)


class _LockedOnDisk:
    """A file that only this process may change."""

    def __init__(self, storage: LocalStorage, name: str, descriptor: int) -> None:
        self._storage, self._name, self._descriptor = storage, name, descriptor

    def append(self, content: bytes, at: int) -> None:
        """Write bytes durably and cut what follows them. If that fails, nothing changes."""
        try:
            if os.fstat(self._descriptor).st_size > at:
                disk.truncate(self._descriptor, at)
            disk.write_at(self._descriptor, content, at)
            disk.sync_content(self._descriptor)
        except OSError as error:
            with suppress(OSError):
                disk.truncate(self._descriptor, at)
            raise _not_written(error) from error

    def replace(self, content: bytes) -> None:
        """Replace the whole content at once."""
        try:
            self._storage.write(self._name, [content])
        except OSError as error:
            raise _not_written(error) from error


class DirectoryFiles:
    """Files in one folder. They are read with `pread` and not mapped, for the reason that `LocalStorage` has.

    The state of a file is (its identity, its size), and shows whether others changed or replaced it. An identity is
    certain only while the file is open: it may be used again later.
    """

    def __init__(self, directory: Path, *, read_only: bool) -> None:
        self._directory, self.read_only = directory, read_only
        self._storage = LocalStorage(directory)

    def names(self) -> list[str]:
        return [name for name in self._storage.list() if _NAME.fullmatch(name)]

    def state(self, name: str) -> tuple[int, int] | None:
        """None for a missing file."""
        try:
            # Every read looks here, and joining paths takes longer than looking.
            found = os.stat(f"{self._directory}/{name}")  # noqa: PTH116
        except OSError:
            return None
        return found.st_ino, found.st_size

    def opened(self, name: str) -> _FileOnDisk | None:
        """None for a missing file."""
        try:
            return _FileOnDisk(os.open(self._directory / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
        except FileNotFoundError:
            return None

    @contextmanager
    def writing(self, name: str) -> Iterator[_LockedOnDisk]:
        """Lock a file for changes; a missing one is made."""
        if self.read_only:
            raise ReadOnlyStore("snapshots cannot be made in a store opened to be read")
        try:
            descriptor = self._locked(name)
        except OSError as error:
            raise _not_written(error) from error
        try:
            yield _LockedOnDisk(self._storage, name, descriptor)
        finally:
            os.close(descriptor)

    def _locked(self, name: str) -> int:
        """A descriptor that has the right to change the file of this name."""
        path = self._directory / name
        while True:
            disk.make_directory(self._directory)
            new = not path.exists()
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                ofd.wait_exclusive(descriptor, _LOCKED)
                if new:
                    disk.sync_directory(self._directory)
                if os.fstat(descriptor).st_ino == (self.state(name) or (0, 0))[0]:
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # the file was replaced while this process waited

    def remove(self, name: str) -> None:
        if self.read_only:
            raise ReadOnlyStore("snapshots cannot be dropped in a store opened to be read")
        try:
            self._storage.remove(name)
            self._storage.sweep()
        except OSError as error:
            raise StoreError("snapshots could not be removed", got=str(error), hint="Allow writing there.") from error


def _not_written(error: OSError) -> StoreFull:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    hint = "Free some space; answers come from the events meanwhile." if full else None
    return StoreFull("a snapshot could not be written", got=str(error), hint=hint or "Allow writing there.")


Files: TypeAlias = "DirectoryFiles | MemoryFiles"
OpenFile: TypeAlias = "_FileOnDisk | _FileInMemory"
LockedFile: TypeAlias = "_LockedOnDisk | _FileInMemory"
