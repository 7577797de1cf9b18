"""What the parts of an open store share, and one change of its catalog and files: all of it or nothing."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from eventlab.storage.api import Storage
from eventlab.store.catalog.connection import translated
from eventlab.store.catalog.database import Catalog
from eventlab.store.catalog.log_index import LogIndex
from eventlab.store.disk.read_leases import Leases
from eventlab.store.disk.writer_lock import Exclusive, FileLock
from eventlab.store.journal.files import Journals
from eventlab.store.segments.files import discard
from eventlab.store.types import Codec


@dataclass(slots=True, eq=False)
class OpenStore:
    """The catalog, the files and the locks of an open store.

    Attributes
    ----------
    exclusive : Exclusive
        The right to write, which one process has at a time.
    rewriting : FileLock
        The right to rewrite segments.
    codec : {"parquet", "archive"}
        The codec of new segments.
    index : LogIndex
        What this process knows of catalog and journal.
    lock : RLock
        Held while a thread uses the store.
    """

    catalog: Catalog
    storage: Storage
    journals: Journals
    leases: Leases
    exclusive: Exclusive
    rewriting: FileLock
    codec: Codec
    index: LogIndex = field(init=False)
    lock: threading.RLock = field(init=False, default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.index = LogIndex(self.catalog, self.journals)

    def release(self) -> None:
        """Give all locks and files back."""
        self.exclusive.close()
        self.rewriting.close()
        self.index.close()
        self.catalog.close()

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
