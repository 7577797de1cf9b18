"""The fault-injecting layer: every step by which a store changes what is on disk, one after the other.

A step is a call into `eventlab.storage.operations`, or an SQLite statement that begins, ends or checkpoints a
transaction. Each has moments: before it, half-way where it writes, and after it. A listener may raise there, or look
at the files.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from eventlab.storage import operations as disk

When = Literal["before", "half", "after"]

OPERATIONS = (
    "create", "write_at", "allocate", "truncate", "sync", "sync_content", "sync_directory", "make_directory", "remove",
    "rename", "link",
)  # fmt: skip
_STATEMENTS = (
    "BEGIN IMMEDIATE", "COMMIT", "PRAGMA wal_checkpoint", "PRAGMA incremental_vacuum", "PRAGMA journal_mode", "VACUUM",
)  # fmt: skip


@dataclass(frozen=True)
class Moment:
    """A place where something can go wrong."""

    number: int
    name: str
    when: When
    arguments: tuple[Any, ...] = field(default=(), repr=False, compare=False)

    @property
    def is_sql(self) -> bool:
        return self.name not in OPERATIONS

    def __str__(self) -> str:
        return f"{self.number}: {self.when} {self.name}"


class Layer:
    """Counts moments while it is armed and tells a listener of each."""

    def __init__(self) -> None:
        self.listener: Callable[[Moment], None] | None = None
        self.done: Callable[[str, tuple[Any, ...], Any], None] | None = None
        self.moments: list[Moment] = []

    def at(self, name: str, when: When, arguments: tuple[Any, ...] = ()) -> None:
        if self.listener is not None:
            moment = Moment(len(self.moments), name, when, arguments)
            self.moments.append(moment)
            self.listener(moment)

    @contextmanager
    def armed(self, listener: Callable[[Moment], None]) -> Iterator[list[Moment]]:
        """Tell `listener` of every moment inside; gives the list of those met."""
        self.moments, self.listener = [], listener
        try:
            yield self.moments
        finally:
            self.listener = None


@contextmanager
def layer() -> Iterator[Layer]:
    """Stores opened inside run through the layer."""
    made = Layer()
    originals = {name: getattr(disk, name) for name in OPERATIONS}
    connect = sqlite3.connect

    def watched(name: str) -> Callable[..., Any]:
        original = originals[name]

        def call(*arguments: Any) -> Any:
            made.at(name, "before", arguments)
            if name == "write_at" and made.listener is not None and len(memoryview(arguments[1]).cast("B")) > 1:
                descriptor, content, offset = arguments
                whole = memoryview(content).cast("B")
                half = whole[: len(whole) // 2]
                original(descriptor, half, offset)
                made.at(name, "half", (descriptor, half, offset))
            result = original(*arguments)
            if made.done is not None:
                made.done(name, arguments, result)
            made.at(name, "after", arguments)
            return result

        return call

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            name = next((known for known in _STATEMENTS if statement.startswith(known)), None)
            if name is None:
                return super().execute(statement, *values)
            made.at(name, "before", (self,))
            cursor = super().execute(statement, *values)
            try:
                made.at(name, "after", (self,))
            except BaseException:
                cursor.close()  # as when the interpreter drops it; the traceback would keep this one
                raise
            return cursor

    def connected(*arguments: Any, **more: Any) -> sqlite3.Connection:
        return connect(*arguments, **more, factory=Connection)

    try:
        for name in OPERATIONS:
            setattr(disk, name, watched(name))
        sqlite3.connect = connected
        yield made
    finally:
        sqlite3.connect = connect
        for name, original in originals.items():
            setattr(disk, name, original)


def failure(moment: Moment, code: int = errno.EIO) -> Exception:
    """What the system says at a moment when it fails."""
    if not moment.is_sql:
        return OSError(code, os.strerror(code))
    full = code == errno.ENOSPC
    error = sqlite3.OperationalError("database or disk is full" if full else "disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_IOERR
    return error


def grows(moment: Moment) -> bool:
    """Whether a step needs room that a full disk does not have."""
    if moment.name == "write_at":
        descriptor, content, offset = moment.arguments
        return offset + len(memoryview(content).cast("B")) > os.fstat(descriptor).st_size
    return moment.name in ("create", "allocate", "make_directory", "COMMIT")


def path_of(directory: Path, descriptor: int) -> Path:
    """The file of a store that a descriptor is of."""
    wanted = os.fstat(descriptor)
    return next(path for path in directory.rglob("*") if os.path.samestat(path.stat(), wanted))
