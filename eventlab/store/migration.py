"""From older formats of a store to the present one, each step in one transaction; new files are complete before it.

Format 1 kept small commits as rows of a table `tail`, and knew one version of an event type. Its statements are written
out here, because what a step does never changes again.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eventlab.errors import StoreCorrupt
from eventlab.events.types import EventType
from eventlab.store.blob_1 import from_blob
from eventlab.store.journal.columns_codec import to_blob
from eventlab.store.journal.files import JOURNALS_NAME, DirectoryJournals
from eventlab.store.journal.journal import HEAD, Record

_FROM_1 = """
CREATE TABLE event_types_2 (
    no INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    schema_version INTEGER NOT NULL,
    schema TEXT NOT NULL,
    UNIQUE (name, schema_version)
);
INSERT INTO event_types_2 SELECT no, name, json_extract(schema, '$.schema_version'), schema FROM event_types;
DROP TABLE event_types;
ALTER TABLE event_types_2 RENAME TO event_types;
CREATE TABLE files_2 (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    segment INTEGER NOT NULL REFERENCES segments (first_position),
    event_type INTEGER NOT NULL REFERENCES event_types (no),
    name TEXT NOT NULL UNIQUE,
    rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    footer_bytes INTEGER NOT NULL,
    footer_crc INTEGER NOT NULL
);
INSERT INTO files_2 SELECT no, segment, event_type, name, rows, bytes, footer_bytes, footer_crc FROM files;
DROP TABLE files;
ALTER TABLE files_2 RENAME TO files;
DELETE FROM event_ids WHERE EXISTS
    (SELECT 1 FROM tail WHERE position >= tail.first_position AND position < tail.stop_position);
DELETE FROM commits WHERE first_position IN (SELECT first_position FROM tail);
DROP TABLE tail;
CREATE TABLE runs_2 (
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
INSERT INTO runs_2 SELECT * FROM runs;
DROP TABLE runs;
ALTER TABLE runs_2 RENAME TO runs;
CREATE INDEX runs_file ON runs (file);
CREATE TABLE garbage (
    file INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    bytes INTEGER NOT NULL,
    dropped INTEGER NOT NULL
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
PRAGMA user_version = 2;
"""


def migrate(connection: sqlite3.Connection, directory: Path) -> None:
    """Bring a store to the present format. Whatever fails or is killed, it stays as it was.

    Raises
    ------
    StoreCorrupt
        A small commit that is damaged: it would be lost for good.
    """
    connection.execute("PRAGMA foreign_keys = OFF")  # has no effect inside a transaction
    try:
        connection.execute("BEGIN IMMEDIATE")
        for step in _STEPS[connection.execute("PRAGMA user_version").fetchone()[0] :]:  # another process may be done
            step(connection, directory)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    finally:
        connection.execute("PRAGMA foreign_keys = ON")


def _from_1(connection: sqlite3.Connection, directory: Path) -> None:
    journal = _journal_of_tail(connection, directory)
    for statement in _FROM_1.split(";\n"):
        connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('journal', ?)", (journal,))
    broken = connection.execute("PRAGMA foreign_key_check").fetchone()
    if broken is not None:
        raise StoreCorrupt(f"{directory}: the catalog's tables do not fit together", got=str(broken))


def _journal_of_tail(connection: sqlite3.Connection, directory: Path) -> str:
    """Write the rows of the tail as a journal; its name, empty where there are none."""
    types = {
        number: EventType.from_schema_json(schema)
        for number, schema in connection.execute("SELECT no, schema FROM event_types")
    }
    rows = connection.execute(
        "SELECT c.first_position, c.events, c.clamped, c.recorded_at, c.last_version, c.digest, s.identity, c.chunk, "
        "EXISTS (SELECT 1 FROM event_ids WHERE position >= t.first_position AND position < t.stop_position), "
        "t.crc, t.events FROM tail t JOIN commits c USING (first_position) LEFT JOIN sources s ON s.no = c.source "
        "ORDER BY c.first_position"
    )
    records = [_record(row, types, directory) for row in rows]
    if not records:
        return ""
    store_id = connection.execute("SELECT value FROM meta WHERE key = 'store_id'").fetchone()[0]
    journals = DirectoryJournals(directory / JOURNALS_NAME, store_id, read_only=False, synced=True)
    name = journals.create()
    journal = journals.open(name)
    try:
        journal.append(records)
        journal.trim()
    finally:
        journal.close()
    return name


def _record(row: Sequence[Any], types: Mapping[int, EventType], directory: Path) -> Record:
    first, events, clamped, recorded_at, last_version, digest, identity, chunk, has_ids, crc, blob = row
    if zlib.crc32(blob) != crc:
        raise StoreCorrupt(f"{directory}: the commit at position {first} is damaged", hint="Restore it from a copy.")
    extras: dict[str, object] = {}
    if identity is not None:
        extras["source"] = (identity, chunk)
    if has_ids:
        extras["ids"] = True
    blocks = from_blob(blob, types)
    heads: dict[int, tuple[int, int, int]] = {}
    for block in blocks.values():
        columns = (block.aggregate, block.version, block.position, block.timestamp)
        for number, version, position, timestamp in zip(*(column.tolist() for column in columns), strict=True):
            heads[number] = max(heads.get(number, (0, -1, 0)), (version, position, timestamp))
    packed = b"".join(HEAD.pack(number, *head) for number, head in heads.items())
    renewed = to_blob(list(blocks.items()))
    return Record(first, events, clamped, recorded_at, last_version, digest, packed, extras, renewed)


_STEPS: tuple[Callable[[sqlite3.Connection, Path], None], ...] = (lambda *_: None, _from_1)
"""By the format they begin at."""
