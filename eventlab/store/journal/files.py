"""Files of journals: in a directory, or in memory for ``:memory:`` stores."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path

from eventlab.errors import StoreCorrupt
from eventlab.storage import operations as disk
from eventlab.storage.local import write_new
from eventlab.store.journal.journal import Journal, empty
from eventlab.store.journal.journal_file import DiskFile, MemoryFile

JOURNALS_NAME = "journal"
"""The folder of a store that holds them."""

_NAME = re.compile(r"[0-9a-f]{16}\.journal")


class DirectoryJournals:
    """Files in the folder ``journal`` of a store."""

    def __init__(self, directory: Path, store_id: str, *, read_only: bool, synced: bool) -> None:
        self._directory = directory
        self._store_id = store_id
        self._read_only = read_only
        self._synced = synced

    def create(self) -> str:
        """Make a new one durably; it counts once the catalog names it."""
        disk.make_directory(self._directory)
        name = f"{secrets.token_hex(8)}.journal"
        write_new(self._directory / name, [empty(self._store_id)])
        for folder in (self._directory, self._directory.parent):
            disk.sync_directory(folder)
        return name

    def open(self, name: str) -> Journal:
        """Raises FileNotFoundError, StoreCorrupt."""
        if not _NAME.fullmatch(name):
            raise StoreCorrupt(f"{self._directory.parent}: the catalog names a file that is no journal", got=name)
        path = self._directory / name
        file = DiskFile(path, read_only=self._read_only)
        try:
            return Journal(file, self._store_id, f"{self._directory.parent}: {name}", synced=self._synced)
        except BaseException:
            file.close()
            raise

    def remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            disk.remove(self._directory / name)

    def names(self) -> set[str]:
        """All files that look like journals."""
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


Journals = DirectoryJournals | MemoryJournals
"""The journals of a store, by name."""
