"""One change of a store's catalog and files: all of it or nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from eventlab.storage.api import Storage
from eventlab.store.catalog.connection import translated
from eventlab.store.catalog.database import Catalog
from eventlab.store.catalog.log_index import LogIndex
from eventlab.store.segments.files import discard


@contextmanager
def transaction(catalog: Catalog, storage: Storage, index: LogIndex) -> Iterator[list[str]]:
    """A write transaction. Whatever fails inside, nothing remains: neither rows nor the files named in the list."""
    written: list[str] = []
    begun = committing = False
    try:
        catalog.begin_write()
        begun = True
        index.refresh()
        yield written
        committing = True
        catalog.commit()
    except BaseException as error:
        catalog.rollback()
        if begun:
            index.forget()  # what was learned inside
        # A COMMIT that was interrupted, or said that it failed, may stand, and name these files. If not, they are
        # swept when the store is next opened.
        if not committing:
            discard(storage, written)
        if isinstance(error, (sqlite3.Error, OSError)):
            raise translated(error, catalog.where) from error
        raise
