"""The format of a store: its number, how it is read from the catalog, and which formats open."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from pathlib import Path

from eventlab.errors import NotAStore, StoreTooNew, StoreTooOld

FORMAT = 1
"""Rises with every change of what a store's directory holds."""

APPLICATION_ID = 0x65764C61  # "evLa"
EARLIER_APPLICATION_ID = 0x65764C62  # of stores from before format 1

# Of SQLite's file formats: page size and salts of a WAL; page number and salts of its frames; user version and
# application id at their places in a database's first page.
_WAL_HEAD = struct.Struct(">8xI4x8s8x")
_WAL_FRAME = struct.Struct(">I4x8s8x")
_DATABASE_HEAD = struct.Struct(">60xi4xI")


def identity_of(connection: sqlite3.Connection) -> tuple[int, int]:
    """Application id and format."""
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    return application, version


def identity_on_disk(path: Path) -> tuple[int, int] | None:
    """Application id and format of a catalog, read without changing its directory; None where the files do not tell.

    An ordinary connection creates a WAL index even to read, and writes the WAL back when it closes.
    """
    if not path.exists():
        return None
    # Through SQLite and not from the file: closing a descriptor of it would drop the locks SQLite holds on it.
    immutable = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(immutable, uri=True)) as connection:
        identity = identity_of(connection)
        if identity != (0, 0):
            return identity
    return _identity_in_wal(path.with_name(path.name + "-wal"))


def _identity_in_wal(wal: Path) -> tuple[int, int] | None:
    """The same from the WAL of a store whose first transactions were never copied into the database."""
    identity = None
    with contextlib.suppress(OSError), wal.open("rb") as file:
        head = file.read(_WAL_HEAD.size)
        if len(head) == _WAL_HEAD.size:
            page_size, salt = _WAL_HEAD.unpack(head)
            while len(frame := file.read(_WAL_FRAME.size + page_size)) == _WAL_FRAME.size + page_size:
                number, frame_salt = _WAL_FRAME.unpack_from(frame)
                if frame_salt != salt:
                    break
                if number == 1:
                    version, application = _DATABASE_HEAD.unpack_from(frame, _WAL_FRAME.size)
                    identity = application, version
    return identity


def check_format(where: str, application: int, version: int) -> None:
    """Decide by its catalog's application id and format number whether this eventlab opens a store.

    There are no migrations before the first release. The first one starts here: the formats that it reads pass.

    Raises
    ------
    NotAStore, StoreTooOld, StoreTooNew
        Another program's database; another format than `FORMAT`.
    """
    if application not in (APPLICATION_ID, EARLIER_APPLICATION_ID):
        raise NotAStore(f"{where}: the catalog is not eventlab's", got=f"application id {application:#x}")
    again = "ingest the data again into a new lab."
    if application == EARLIER_APPLICATION_ID or version < FORMAT:
        earlier = "" if application == APPLICATION_ID else " of the series before"
        raise StoreTooOld(
            f"{where}: written by an older eventlab", got=f"format {version}{earlier}", expected=f"format {FORMAT}",
            hint=again.capitalize(),
        )  # fmt: skip
    if version > FORMAT:
        raise StoreTooNew(
            f"{where}: written by a newer eventlab", got=f"format {version}", expected=f"format {FORMAT}",
            hint=f"Upgrade eventlab, or {again}",
        )  # fmt: skip
