"""Files that are in nobody's way any more: those that compaction dropped, and those that nobody ever named."""

from __future__ import annotations

from collections.abc import Sequence

from eventlab.store.catalog.database import Catalog
from eventlab.store.catalog.manifest import Knowledge
from eventlab.store.catalog.transaction import transaction
from eventlab.store.disk.read_leases import Leases
from eventlab.store.journal.files import Journals
from eventlab.store.segments.files import Vault
from eventlab.store.segments.segments import SegmentFile
from eventlab.store.types import Vacuumed


class Garbage:
    """Removes files. Everything here runs while this process alone may write.

    A dropped file's runs stay in the catalog as long as the file: whoever reads it looks them up.
    """

    def __init__(
        self, catalog: Catalog, vault: Vault, journals: Journals, knowledge: Knowledge, leases: Leases
    ) -> None:
        self._catalog = catalog
        self._vault = vault
        self._journals = journals
        self._knowledge = knowledge
        self._leases = leases

    def drop(self, files: Sequence[SegmentFile], generation: int) -> None:
        """Take files out of the catalog, inside the transaction that names those in their place."""
        self._catalog.executemany(
            "INSERT INTO garbage (file, name, bytes, dropped) VALUES (?, ?, ?, ?)",
            [(file.no, file.name, file.bytes, generation) for file in files],
        )
        self._catalog.executemany("DELETE FROM files WHERE no = ?", [(file.no,) for file in files])

    def collect(self) -> Vacuumed:
        """Remove dropped files that nobody can be reading.

        Their files go first: a process that is killed half-way leaves rows, which the next one takes for what they are.
        """
        query = "SELECT file, name, bytes, dropped FROM garbage ORDER BY dropped"
        if not self._catalog.execute(query).fetchone():
            return Vacuumed()
        with transaction(self._catalog, self._vault, self._knowledge):
            rows = self._catalog.execute(query).fetchall()
            # Whoever leases a generation below one of these leases one below all that follow.
            leased = next((at for at, (*_, dropped) in enumerate(rows) if self._leases.is_leased(dropped)), len(rows))
            for _, name, _, _ in rows[:leased]:
                self._vault.remove(name)
            remaining = self._vault.names()
            gone = [row for row in rows[:leased] if row[1] not in remaining]
            self._catalog.executemany("DELETE FROM runs WHERE file = ?", [(file,) for file, *_ in gone])
            self._catalog.executemany("DELETE FROM garbage WHERE file = ?", [(file,) for file, *_ in gone])
        kept = rows[leased:]
        return Vacuumed(len(gone), sum(row[2] for row in gone), len(kept), sum(row[2] for row in kept))

    def sweep(self) -> Vacuumed:
        """Remove files that the catalog does not name: what a killed writer left.

        Not while segments are being rewritten: their new files have no name yet.
        """
        found, journals = self._vault.names(), self._journals.names()
        if not (found or journals) or not self._catalog.try_begin_write():
            return Vacuumed()
        files = size = 0
        try:
            query = "SELECT name FROM files UNION ALL SELECT name FROM garbage"
            for name in found.difference(name for (name,) in self._catalog.execute(query)):
                size += self._size(name)
                self._vault.remove(name)
                files += 1
            journal = self._catalog.execute("SELECT value FROM meta WHERE key = 'journal'").fetchone()[0]
            for name in journals - {journal}:
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
