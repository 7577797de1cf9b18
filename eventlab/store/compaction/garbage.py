"""Removing files: those that compaction replaced, and those that a killed writer left."""

from __future__ import annotations

from eventlab.storage.api import Storage
from eventlab.store.catalog.database import Catalog
from eventlab.store.catalog.log_index import LogIndex
from eventlab.store.catalog.transaction import transaction
from eventlab.store.disk.read_leases import Leases
from eventlab.store.journal.files import Journals
from eventlab.store.segments.files import discard, segment_files
from eventlab.store.types import Vacuumed


class Garbage:
    """Removes files. Call its methods while no other process may write."""

    def __init__(self, catalog: Catalog, storage: Storage, journals: Journals, index: LogIndex, leases: Leases) -> None:
        self._catalog = catalog
        self._storage = storage
        self._journals = journals
        self._index = index
        self._leases = leases

    def collect(self) -> Vacuumed:
        """Remove dropped files that no reader holds a lease on.

        The files go first: a process that is killed half-way leaves their rows, and the next one removes them.
        """
        if not self._catalog.dropped_files():
            return Vacuumed()
        with transaction(self._catalog, self._storage, self._index):
            files = self._catalog.dropped_files()
            # A lease on a generation below one of these is below all that follow.
            leased = next((at for at, file in enumerate(files) if self._leases.is_leased(file.generation)), len(files))
            discard(self._storage, [file.name for file in files[:leased]])
            remaining = segment_files(self._storage)
            removed = [file for file in files[:leased] if file.name not in remaining]
            self._catalog.forget_dropped([file.no for file in removed])
        kept = files[leased:]
        return Vacuumed(len(removed), sum(f.bytes for f in removed), len(kept), sum(f.bytes for f in kept))

    def sweep(self) -> Vacuumed:
        """Remove files of a killed writer, which the catalog does not name.

        Do not call it while segments are being rewritten: the catalog does not name their new files yet.
        """
        found, journals = segment_files(self._storage), self._journals.names()
        if not (found or journals) or not self._catalog.try_begin_write():
            return Vacuumed()
        try:
            named = self._catalog.file_names()
            removed = {name: size for name, size in found.items() if name not in named}
            discard(self._storage, removed)
            removed |= self._storage.sweep()
            for name in journals - {self._catalog.journal_name()}:
                self._journals.remove(name)
        finally:
            self._catalog.rollback()
        return Vacuumed(len(removed), sum(removed.values()))
