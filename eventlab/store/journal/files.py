"""Files of journals: in a directory, or in memory for ``:memory:`` stores."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path
from typing import Protocol

from eventlab.errors import StoreCorrupt
from eventlab.storage import operations as disk
from eventlab.store.journal.journal import Journal, empty

JOURNALS_NAME = "journal"
"""The folder of a store that holds them."""

_NAME = re.compile(r"[0-9a-f]{16}\.journal")


class DiskFile:
    """A file of a directory."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: Path, *, read_only: bool) -> DiskFile:
        return cls(os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC))

    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def write_at(self, content: bytes, offset: int, *, synced: bool = False) -> None:
        disk.write_at(self._descriptor, content, offset)
        if synced:
            self.sync()

    def allocate(self, offset: int, length: int) -> None:
        disk.allocate(self._descriptor, offset, length)

    def sync(self) -> None:
        disk.sync_content(self._descriptor)

    def truncate(self, length: int) -> None:
        disk.truncate(self._descriptor, length)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        os.close(self._descriptor)


class MemoryFile:
    """Bytes that live as long as the store."""

    def __init__(self) -> None:
        self._content = bytearray()

    def read_at(self, offset: int, length: int) -> bytes:
        return bytes(self._content[offset : offset + length])

    def write_at(self, content: bytes, offset: int, *, synced: bool = False) -> None:
        self._content[offset : offset + len(content)] = content

    def allocate(self, offset: int, length: int) -> None:
        self._content.extend(bytes(max(offset + length - len(self._content), 0)))

    def sync(self) -> None:
        """Nothing outlives the process."""

    def truncate(self, length: int) -> None:
        del self._content[length:]

    def size(self) -> int:
        return len(self._content)

    def close(self) -> None:
        """Nothing to give back."""


class Journals(Protocol):
    """The journals of a store, by name."""

    def create(self) -> str:
        """Make a new one durably; it counts once the catalog names it."""

    def open(self, name: str) -> Journal:
        """Raises FileNotFoundError, StoreCorrupt."""

    def remove(self, name: str) -> None:
        """Remove one; no error where there is none."""

    def names(self) -> set[str]:
        """All files that look like journals."""


class DirectoryJournals:
    """Files in the folder ``journal`` of a store."""

    def __init__(self, directory: Path, store_id: str, *, read_only: bool, synced: bool) -> None:
        self._directory = directory
        self._store_id = store_id
        self._read_only = read_only
        self._synced = synced

    def create(self) -> str:
        disk.make_directory(self._directory)
        name = f"{secrets.token_hex(8)}.journal"
        descriptor = disk.create(self._directory / name)
        try:
            disk.write_at(descriptor, empty(self._store_id), 0)
            disk.sync(descriptor)
        finally:
            os.close(descriptor)
        for folder in (self._directory, self._directory.parent):
            disk.sync_directory(folder)
        return name

    def open(self, name: str) -> Journal:
        if not _NAME.fullmatch(name):
            raise StoreCorrupt(f"{self._directory.parent}: the catalog names a file that is no journal", got=name)
        path = self._directory / name
        file = DiskFile.open(path, read_only=self._read_only)
        try:
            return Journal(file, self._store_id, f"{self._directory.parent}: {name}", synced=self._synced)
        except BaseException:
            file.close()
            raise

    def remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            disk.remove(self._directory / name)

    def names(self) -> set[str]:
        if not self._directory.is_dir():
            return set()
        return {entry.name for entry in os.scandir(self._directory) if _NAME.fullmatch(entry.name)}


class MemoryJournals:
    """Journals of a store in memory."""

    def __init__(self, store_id: str) -> None:
        self._store_id = store_id
        self._files: dict[str, MemoryFile] = {}

    def create(self) -> str:
        name = f"{secrets.token_hex(8)}.journal"
        file = self._files[name] = MemoryFile()
        file.write_at(empty(self._store_id), 0)
        return name

    def open(self, name: str) -> Journal:
        if name not in self._files:
            raise FileNotFoundError(name)
        return Journal(self._files[name], self._store_id, ":memory:", synced=True)

    def remove(self, name: str) -> None:
        self._files.pop(name, None)

    def names(self) -> set[str]:
        return set(self._files)
