"""Checkpoints of read models in the catalog: a position and the state there, replaced together.

They are derived and disposable. A checkpoint names the commit of its last event: in a store that was replaced by an
older copy, or that lost its last commits in a power failure, the same position may hold other events, and a state that
was folded from the lost ones must not be used.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable

from eventlab.errors import ReadOnlyStore
from eventlab.store.catalog.database import Catalog
from eventlab.store.types import Checkpoint, Mark

_MARK = "SELECT position, digest, saved_at, crc FROM checkpoints WHERE name = ? AND fingerprint = ?"
_ALL = "SELECT position, digest, saved_at, crc, state FROM checkpoints WHERE name = ? AND fingerprint = ?"
_REPLACE = (
    "INSERT OR REPLACE INTO checkpoints (name, fingerprint, position, digest, saved_at, crc, state) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)


class Checkpoints:
    """Checkpoints of one store, by name and fingerprint of what made them.

    Parameters
    ----------
    digest_at : callable
        Digest of the commit that ends at a position, None where none does.
    """

    def __init__(self, catalog: Catalog, lock: threading.RLock, digest_at: Callable[[int], bytes | None]) -> None:
        self._catalog, self._lock, self._digest_at = catalog, lock, digest_at

    def load(self, name: str, fingerprint: str) -> Checkpoint | None:
        """The checkpoint, with the reason where it cannot be used; None where there is none."""
        with self._lock:
            with self._catalog.reading():
                row = self._catalog.execute(_ALL, (name, fingerprint)).fetchone()
            if row is None:
                return None
            mark, state = Mark(*row[:4]), row[4]
            try:
                intact = mark.crc == _crc(name, fingerprint, mark.position, mark.digest, state)
            except (TypeError, ValueError, OverflowError):  # a hand wrote other types into the row
                intact = False
            if not intact:
                return Checkpoint(mark, b"", "it is damaged")
            if self._digest_at(mark.position) != mark.digest:
                return Checkpoint(mark, b"", "it belongs to a log with other events")
            return Checkpoint(mark, state)

    def others(self, name: str, fingerprint: str) -> bool:
        """Whether there are checkpoints of this name by another fingerprint."""
        with self._lock, self._catalog.reading():
            query = "SELECT count(*) FROM checkpoints WHERE name = ? AND fingerprint <> ?"
            return bool(self._catalog.execute(query, (name, fingerprint)).fetchone()[0])

    def save(
        self,
        name: str,
        fingerprint: str,
        position: int,
        state: memoryview,
        *,
        had: bool,
        discard: Mark | None,
        supersede: bool,
    ) -> bool:
        """Replace a checkpoint by a later one, in one transaction; returns whether one as late is there now.

        One that another process saved at a later position stays.

        Parameters
        ----------
        position : int
            The end of a commit. At others nothing is saved.
        had : bool
            Whether the caller had a checkpoint before. If it is gone and there are others of its name, the name was
            taken over, and nothing is saved.
        discard : Mark or None
            One that was found unusable, which is replaced whatever its position.
        supersede : bool
            Remove those of other fingerprints, in the same transaction.

        Raises
        ------
        StoreLocked, StoreFull, ReadOnlyStore
            Nothing was changed.
        """
        if self._catalog.read_only:
            raise ReadOnlyStore(f"{self._catalog.where}: a checkpoint cannot be saved in a store opened to be read")
        where = (name, fingerprint)
        with self._lock:
            digest = self._digest_at(position)
            if digest is None:
                return False
            row = (*where, position, digest, time.time_ns(), _crc(name, fingerprint, position, digest, state), state)
            with self._catalog.writing():
                found = self._catalog.execute(_MARK, where).fetchone()
                if found is None and had and self.others(*where):
                    return False
                if found is None or Mark(*found) == discard or found[0] < position:
                    self._catalog.execute(_REPLACE, row)
                if supersede:
                    self._catalog.execute("DELETE FROM checkpoints WHERE name = ? AND fingerprint <> ?", where)
                self._catalog.commit()
            return True


def _crc(name: str, fingerprint: str, position: int, digest: bytes, state: bytes | memoryview) -> int:
    head = f"{name}\0{fingerprint}\0{position}\0".encode() + digest
    return zlib.crc32(state, zlib.crc32(head))
