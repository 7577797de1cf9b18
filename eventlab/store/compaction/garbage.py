"""Removing files: those that compaction replaced, and those that a killed writer left."""

from __future__ import annotations

from eventlab.store.catalog.open_store import OpenStore
from eventlab.store.segments.files import discard, segment_files
from eventlab.store.types import Vacuumed


class Garbage:
    """Removes files. Call its methods while no other process may write."""

    def __init__(self, store: OpenStore) -> None:
        self._store = store

    def collect(self) -> Vacuumed:
        """Remove dropped files that no reader holds a lease on.

        The files go first: a process that is killed half-way leaves their rows, and the next one removes them.
        """
        if not self._store.catalog.dropped_files():
            return Vacuumed()
        with self._store.transaction():
            files = self._store.catalog.dropped_files()
            # A lease on a generation below one of these is below all that follow.
            leased = next(
                (at for at, file in enumerate(files) if self._store.leases.is_leased(file.generation)), len(files)
            )
            discard(self._store.storage, [file.name for file in files[:leased]])
            remaining = segment_files(self._store.storage)
            removed = [file for file in files[:leased] if file.name not in remaining]
            self._store.catalog.forget_dropped([file.no for file in removed])
        kept = files[leased:]
        return Vacuumed(len(removed), sum(f.bytes for f in removed), len(kept), sum(f.bytes for f in kept))

    def sweep(self) -> Vacuumed:
        """Remove files of a killed writer, which the catalog does not name.

        Do not call it while segments are being rewritten: the catalog does not name their new files yet.
        """
        found, journals = segment_files(self._store.storage), self._store.journals.names()
        if not (found or journals) or not self._store.catalog.try_begin_write():
            return Vacuumed()
        try:
            named = self._store.catalog.file_names()
            removed = {name: size for name, size in found.items() if name not in named}
            discard(self._store.storage, removed)
            removed |= self._store.storage.sweep()
            for name in journals - {self._store.catalog.journal_name()}:
                self._store.journals.remove(name)
        finally:
            self._store.catalog.rollback()
        return Vacuumed(len(removed), sum(removed.values()))
