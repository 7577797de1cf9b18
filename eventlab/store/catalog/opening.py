"""Opening the catalog: which directories are accepted, and the tables of a new one."""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from pathlib import Path

from eventlab.errors import NotAStore, ReadOnlyStore, StoreCorrupt, StoreError
from eventlab.storage import operations as disk
from eventlab.storage.local import LocalStorage
from eventlab.store.catalog import format as formats
from eventlab.store.catalog.connection import translating, unreadable
from eventlab.store.catalog.database import Catalog
from eventlab.store.segments.files import segment_files

CATALOG_NAME = "catalog.sqlite"
SEGMENTS_NAME = "segments"

_PAGE_LIMIT_ON_WAL = 16 * 1024 * 1024

# An aggregate's `timestamp` is the highest of its event times, and a run's first and last are its lowest and highest.
# A commit's `clamped` counts event times that were raised, or below 0, those kept back-dated: it has one or the other.
# The table `backdated` names the aggregates that have back-dated events.
#
# Small columns come before blobs: SQLite keeps a row's start in the page and reads overflow pages only when asked.
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE event_types (
    no INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    schema_version INTEGER NOT NULL,
    schema TEXT NOT NULL,
    UNIQUE (name, schema_version)
);
CREATE TABLE aggregates (
    no INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    position INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    clock TEXT
);
CREATE TABLE backdated (aggregate INTEGER PRIMARY KEY REFERENCES aggregates (no));
CREATE TABLE commits (
    first_position INTEGER PRIMARY KEY,
    events INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,
    last_version INTEGER NOT NULL,
    clamped INTEGER NOT NULL,
    digest BLOB NOT NULL,
    source INTEGER REFERENCES sources (no),
    chunk INTEGER
);
CREATE UNIQUE INDEX commits_source ON commits (source, chunk) WHERE source IS NOT NULL;
CREATE TABLE segments (
    first_position INTEGER PRIMARY KEY,
    stop_position INTEGER NOT NULL
);
CREATE TABLE files (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    segment INTEGER NOT NULL REFERENCES segments (first_position),
    event_type INTEGER NOT NULL REFERENCES event_types (no),
    name TEXT NOT NULL UNIQUE,
    rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    footer_bytes INTEGER NOT NULL,
    footer_crc INTEGER NOT NULL
);
CREATE TABLE runs (
    aggregate INTEGER NOT NULL REFERENCES aggregates (no),
    file INTEGER NOT NULL,
    row INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    first_version INTEGER NOT NULL,
    last_version INTEGER NOT NULL,
    first_position INTEGER NOT NULL,
    last_position INTEGER NOT NULL,
    first_timestamp INTEGER NOT NULL,
    last_timestamp INTEGER NOT NULL,
    PRIMARY KEY (aggregate, file)
) WITHOUT ROWID;
CREATE INDEX runs_file ON runs (file);
CREATE TABLE garbage (
    file INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    bytes INTEGER NOT NULL,
    dropped INTEGER NOT NULL
);
CREATE TABLE event_ids (
    event_id TEXT PRIMARY KEY,
    position INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE sources (
    no INTEGER PRIMARY KEY,
    identity TEXT NOT NULL UNIQUE,
    receipt TEXT
);
CREATE TABLE checkpoints (
    name TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    position INTEGER NOT NULL,
    digest BLOB NOT NULL,
    saved_at INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (name, fingerprint)
);
"""

_NETWORK_FILE_SYSTEMS = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "9p", "afs", "glusterfs", "ceph", "lustre", "fuse.sshfs",
     "fuse.s3fs")
)  # fmt: skip


def open_memory() -> Catalog:
    """A catalog that lives as long as its connection."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=256)
    connection.execute("PRAGMA foreign_keys = ON")
    _create(connection)
    return Catalog(connection, ":memory:", read_only=False)


def open_directory(directory: Path, *, read_only: bool, wait: float) -> Catalog:
    """The catalog of a store's directory, which is created where there is none.

    Raises
    ------
    NotAStore, StoreTooOld, StoreTooNew, StoreCorrupt, ReadOnlyStore, StoreLocked, StoreError
        A path that holds something else; another format; damage; no permission; another writer; a network file system.
    """
    where = str(directory)
    path = directory / CATALOG_NAME
    try:
        _check_place(directory, path, read_only=read_only)
    except OSError as error:
        raise NotAStore(f"{where}: no place for a store", got=str(error), expected="a directory's path") from error
    identity = formats.identity_on_disk(path)
    if identity is not None:
        formats.check_format(where, *identity)
    if not read_only:
        try:
            _make(directory)
        except PermissionError as error:
            raise ReadOnlyStore(f"{where}: cannot be created", got=str(error)) from error
        except OSError as error:
            raise StoreError(f"{where}: cannot be created", got=str(error)) from error
        if not os.access(directory, os.W_OK):
            raise ReadOnlyStore(f"{where}: cannot be written", hint="Open it with read_only=True.")
    with translating(where):
        connection = _connect(path, wait, read_only=read_only)
        try:
            _prepare(connection, where, wait, read_only=read_only)
            return Catalog(connection, where, read_only=read_only, wait=wait)
        except BaseException as error:
            connection.close()
            if isinstance(error, (LookupError, TypeError, ValueError)):
                raise unreadable(error, where) from error
            raise


def _make(directory: Path) -> None:
    """Make a directory durably: SQLite syncs its files, but not the names of its parents."""
    missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        disk.sync_directory(folder.parent)


def _check_place(directory: Path, path: Path, *, read_only: bool) -> None:
    where = str(directory)
    if "\0" in where:
        raise NotAStore("a path cannot hold a NUL character", got=where)
    if directory.exists() and not directory.is_dir():
        raise NotAStore(f"{where}: is a file", expected="a directory", hint="Give el.open a directory.")
    if not path.exists():
        if read_only:
            raise NotAStore(f"{where}: no eventlab store here", expected=f"a directory with {CATALOG_NAME}")
        if directory.is_dir() and any(directory.iterdir()):
            raise NotAStore(
                f"{where}: the directory holds other things than an eventlab store",
                expected="an empty directory, or one that does not exist yet",
            )
    kind = file_system(directory)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise StoreError(
            f"{where}: is on a network file system, where SQLite's locks do not hold",
            got=kind,
            hint="Keep the store on a local disk and copy it when closed.",
        )


def file_system(path: Path) -> str | None:
    """Type of the file system that holds a path, or will; None where the system does not say."""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    here = os.path.realpath(path)
    best, kind = "", None
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        inside = here == point or here.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind


def _connect(path: Path, wait: float, *, read_only: bool) -> sqlite3.Connection:
    uri = path.absolute().as_uri()
    if not read_only:
        uri += "?mode=rwc"
    elif os.access(path.parent, os.W_OK) or _is_in_use(path):
        uri += "?mode=ro"
    else:
        uri += "?mode=ro&immutable=1"  # SQLite cannot make the WAL's index there, and no writer has made it
    return sqlite3.connect(
        uri, uri=True, isolation_level=None, timeout=wait, check_same_thread=False, cached_statements=256
    )


def _is_in_use(path: Path) -> bool:
    """Whether a WAL holds commits, or its index is there: as long as a writer lives, also while the WAL is empty."""
    wal, index = (path.with_name(path.name + end) for end in ("-wal", "-shm"))
    return index.exists() or (wal.exists() and wal.stat().st_size > 0)


def _prepare(connection: sqlite3.Connection, where: str, wait: float, *, read_only: bool) -> None:
    identity = formats.identity_of(connection)
    fresh = identity == (0, 0) and _is_empty(connection)
    if not fresh:
        formats.check_format(where, *identity)
    elif segment_files(LocalStorage(Path(where) / SEGMENTS_NAME)) and _is_empty(connection):
        # As a new store it would be filled again, and its segments removed as a killed writer's.
        raise StoreCorrupt(
            f"{where}: {CATALOG_NAME} is empty, but there are segment files",
            hint="Restore the catalog from a copy of the store.",
        )
    elif read_only:
        raise NotAStore(f"{where}: the store was never finished", hint="Open it once without read_only.")
    connection.execute("PRAGMA foreign_keys = ON")
    if read_only:
        connection.execute("PRAGMA query_only = ON")
        return
    if fresh:
        connection.execute("PRAGMA page_size = 2048")  # two dozen tables and indexes, most of them small
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    _set_journal_mode(connection, wait)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {_PAGE_LIMIT_ON_WAL}")
    if fresh:
        _create(connection)
        formats.check_format(where, *formats.identity_of(connection))  # another process may have been first


def _set_journal_mode(connection: sqlite3.Connection, wait: float) -> None:
    # SQLite does not call its busy handler while it changes the journal mode.
    deadline = time.monotonic() + wait
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _is_empty(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0)


def _create(connection: sqlite3.Connection) -> None:
    with connection:  # commits, or rolls back if an error ends it
        connection.execute("BEGIN IMMEDIATE")
        if _is_empty(connection):  # another process may have been first
            for statement in _SCHEMA.split(";\n"):
                if statement.strip():
                    connection.execute(statement)
            connection.execute("INSERT INTO meta VALUES ('store_id', ?), ('journal', '')", (str(uuid.uuid4()),))
            connection.execute(f"PRAGMA application_id = {formats.APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {formats.FORMAT}")
