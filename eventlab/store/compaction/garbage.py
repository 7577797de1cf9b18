"""Removing files: those that compaction replaced, and those that a killed writer left."""

from __future__ import annotations

from dataclasses import dataclass

from eventlab.store.catalog.database import Catalog
from eventlab.store.catalog.log_index import LogIndex
from eventlab.store.catalog.transaction import transaction
from eventlab.store.disk.read_leases import Leases
from eventlab.store.journal.files import Journals
from eventlab.store.segments.files import Vault


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """What a vacuum removed, and which dropped files it left because readers use them."""

    files: int = 0
    bytes: int = 0
    leased_files: int = 0
    leased_bytes: int = 0


class Garbage:
    """Removes files. Call its methods while no other process may write."""

    def __init__(self, catalog: Catalog, vault: Vault, journals: Journals, index: LogIndex, leases: Leases) -> None:
        self._catalog = catalog
        self._vault = vault
        self._journals = journals
        self._index = index
        self._leases = leases

    def collect(self) -> Vacuumed:
        """Remove dropped files that no reader holds a lease on.

        The files go first: a process that is killed half-way leaves their rows, and the next one removes them.
        """
        if not self._catalog.dropped_files():
            return Vacuumed()
        with transaction(self._catalog, self._vault, self._index):
            files = self._catalog.dropped_files()
            # A lease on a generation below one of these is below all that follow.
            leased = next((at for at, file in enumerate(files) if self._leases.is_leased(file.generation)), len(files))
            for file in files[:leased]:
                self._vault.remove(file.name)
            remaining = self._vault.names()
            removed = [file for file in files[:leased] if file.name not in remaining]
            self._catalog.forget_dropped([file.no for file in removed])
        kept = files[leased:]
        return Vacuumed(len(removed), sum(f.bytes for f in removed), len(kept), sum(f.bytes for f in kept))

    def sweep(self) -> Vacuumed:
        """Remove files of a killed writer, which the catalog does not name.

        Do not call it while segments are being rewritten: the catalog does not name their new files yet.
        """
        found, journals = self._vault.names(), self._journals.names()
        if not (found or journals) or not self._catalog.try_begin_write():
            return Vacuumed()
        files = size = 0
        try:
            for name in found - self._catalog.file_names():
                size += self._size(name)
                self._vault.remove(name)
                files += 1
            for name in journals - {self._catalog.journal_name()}:
                self._journals.remove(name)
        finally:
            self._catalog.rollback()
        return Vacuumed(files, size)

    def _size(self, name: str) -> int:
        try:
            with self._vault.source(name) as source:
                return int(source.size())
        except OSError:
            return 0
