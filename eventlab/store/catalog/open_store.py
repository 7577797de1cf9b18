"""What the parts of an open store share, and one change of its catalog and files: all of it or nothing."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from eventlab.storage.api import Storage
from eventlab.store.catalog.connection import translated
from eventlab.store.catalog.database import Catalog
from eventlab.store.catalog.log_index import LogIndex
from eventlab.store.disk.read_leases import Leases
from eventlab.store.journal.files import Journals
from eventlab.store.segments.files import discard


@dataclass(frozen=True, slots=True, eq=False)
class OpenStore:
    """The catalog, the files and the index of an open store, and the lock of its threads."""

    catalog: Catalog
    storage: Storage
    journals: Journals
    leases: Leases
    index: LogIndex
    lock: threading.RLock

    @contextmanager
    def transaction(self) -> Iterator[list[str]]:
        """A write transaction. Whatever fails inside, nothing remains: neither rows nor the files named in the list."""
        written: list[str] = []
        begun = committing = False
        try:
            self.catalog.begin_write()
            begun = True
            self.index.refresh()
            yield written
            committing = True
            self.catalog.commit()
        except BaseException as error:
            self.catalog.rollback()
            if begun:
                self.index.forget()  # what was learned inside
            # A COMMIT that was interrupted, or said that it failed, may stand, and name these files. If not, they are
            # swept when the store is next opened.
            if not committing:
                discard(self.storage, written)
            if isinstance(error, (sqlite3.Error, OSError)):
                raise translated(error, self.catalog.where) from error
            raise
