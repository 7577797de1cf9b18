"""A connection to the catalog's database: its transactions, and what SQLite's errors mean to a caller."""

from __future__ import annotations

import contextlib
import sqlite3
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

from eventlab.errors import NotAStore, ReadOnlyStore, StoreCorrupt, StoreError, StoreFull, StoreLocked
from eventlab.store.catalog.page_checksums import PageChecksums, mark

UNREADABLE = (LookupError, TypeError, ValueError, OverflowError, sqlite3.Error)
"""What a damaged catalog raises where its values are used."""


def translated(error: sqlite3.Error | OSError, where: str) -> StoreError:
    """The StoreError for an error of SQLite, or for a failed file operation."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreLocked(
            f"{where}: another writer holds the store", hint="Wait for it, or raise el.open(..., wait=seconds)."
        )
    if isinstance(error, PermissionError) or code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return ReadOnlyStore(f"{where}: cannot be written", got=str(error), hint="Open it with read_only=True.")
    if isinstance(error, OSError) or code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return StoreFull(
            f"{where}: the disk is full or a write failed",
            got=str(error),
            hint="Free some space; nothing of this commit was kept.",
        )
    if code == sqlite3.SQLITE_NOTADB:
        return NotAStore(f"{where}: not an eventlab store", got=str(error))
    if code == sqlite3.SQLITE_CORRUPT:
        return StoreCorrupt(f"{where}: the catalog is damaged", got=str(error), hint="Restore the store from a copy.")
    if code == sqlite3.SQLITE_CANTOPEN:
        return StoreError(f"{where}: cannot be opened", got=str(error), hint="Check that it exists and may be read.")
    return StoreError(f"{where}: the catalog failed", got=str(error))


def unreadable(error: Exception, where: str) -> StoreError:
    """The StoreError for values in the catalog that eventlab cannot have written."""
    if isinstance(error, sqlite3.OperationalError) and getattr(error, "sqlite_errorcode", 1) & 0xFF != 1:
        return translated(error, where)
    return StoreCorrupt(
        f"{where}: the catalog is damaged: it holds what eventlab never writes",
        got=f"{type(error).__name__}: {error}",
        hint="Restore the store from a copy.",
    )


@contextlib.contextmanager
def translating(where: str) -> Iterator[None]:
    """Raise StoreErrors in place of SQLite's and the file system's."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise translated(error, where) from error


class Connection:
    """A connection to the database. No transaction stays open when an error ends it.

    Attributes
    ----------
    damage : StoreCorrupt or None
        What was found wrong with the database's pages when it was opened.
    """

    def __init__(self, connection: sqlite3.Connection, where: str, *, read_only: bool, wait: float = 0.0) -> None:
        self._connection = connection
        # Python 3.13 warns of connections that are collected open.
        weakref.finalize(self, connection.close).atexit = False
        self._wait = wait
        self.executemany = connection.executemany
        self.where = where
        self.read_only = read_only
        self._checksums = PageChecksums(connection, None if where == ":memory:" else Path(where))
        self.damage: StoreCorrupt | None = None
        with self.reading():
            self.damage = self._checksums.damage()
            self.store_id = str(self.execute("SELECT value FROM meta WHERE key = 'store_id'").fetchone()[0])

    def execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """Run a statement; an error of SQLite comes as a StoreError."""
        try:
            return self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise translated(error, self.where) from error

    @contextlib.contextmanager
    def reading(self) -> Iterator[int]:
        """One consistent view of the catalog, and its `data_version`.

        Keep it short: an open one keeps the WAL from shrinking.
        """
        if self._connection.in_transaction:
            yield self.data_version()
            return
        try:
            self.execute("BEGIN")
            self.execute("SELECT 1 FROM meta").fetchone()  # the view begins with the first read
            yield self.data_version()
        except sqlite3.Error as error:
            raise translated(error, self.where) from error
        finally:
            self.rollback()

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def data_version(self) -> int:
        """A number that changes when another connection has committed."""
        with translating(self.where):
            return int(self.execute("PRAGMA data_version").fetchone()[0])

    def begin_write(self) -> None:
        """Take the write lock, waiting as long as the store was opened to."""
        try:
            self.execute("BEGIN IMMEDIATE")
        except BaseException:
            self.rollback()
            raise

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """A write transaction; what is not committed inside is rolled back."""
        with translating(self.where):
            try:
                self.begin_write()
                yield
            finally:
                self.rollback()

    def try_begin_write(self) -> bool:
        """Take the write lock if it is free."""
        with self._impatient():
            try:
                self.begin_write()
            except StoreLocked:
                return False
        return True

    @contextlib.contextmanager
    def _impatient(self) -> Iterator[None]:
        self.execute("PRAGMA busy_timeout = 0")
        try:
            yield
        finally:
            self.execute(f"PRAGMA busy_timeout = {int(self._wait * 1000)}")

    def commit(self) -> None:
        mark(self._connection)
        self.execute("COMMIT")

    def rollback(self) -> None:
        """Undo the transaction; on an I/O error SQLite may have done so by itself."""
        if self._connection.in_transaction:
            with contextlib.suppress(StoreError):
                self.execute("ROLLBACK")

    def tidy(self) -> None:
        """Give freed pages back and empty the WAL as far as no reader needs it, without waiting for any."""
        with contextlib.suppress(sqlite3.Error, StoreError), self._impatient():
            if self.execute("PRAGMA freelist_count").fetchone()[0]:
                with self.writing():
                    self.execute("PRAGMA incremental_vacuum").fetchall()
                    self.commit()
            with self.writing():
                self._checksums.write()
            self.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def copy_to(self, path: Path) -> None:
        """Copy the database, as of one moment, into a new file with no journal of its own."""
        with translating(str(path)):
            copied = sqlite3.connect(path, isolation_level=None)
            try:
                self._connection.backup(copied)
                copied.execute("PRAGMA journal_mode = DELETE").fetchall()
                copied.execute("BEGIN IMMEDIATE")
                # The copy holds no dropped files.
                copied.execute("DELETE FROM runs WHERE file IN (SELECT file FROM garbage)")
                copied.execute("DELETE FROM garbage")
                copied.execute("COMMIT")
            finally:
                copied.close()

    def close(self) -> None:
        with translating(self.where):
            self._connection.close()
