"""Where snapshots lie: Arrow IPC files, each with its reducer's fingerprint and its own checksum in the name.

Snapshots are disposable. A file that cannot be read, or whose bytes are not what was written, is as good as absent.
"""

from __future__ import annotations

import os
import re
import secrets
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from eventlab.errors import ReadOnlyStore, SnapshotError, StoreFull
from eventlab.events.frame import Int64Array
from eventlab.snapshots import form
from eventlab.snapshots.base import Marks

FORMAT = "1"
_NAME = re.compile(r"(?P<print>[0-9a-f]{32})-(?P<crc>[0-9a-f]{8})-[0-9a-f]{16}\.arrow")


class Files(Protocol):
    """Files by name."""

    def names(self) -> list[str]: ...

    def write(self, name: str, content: pa.Buffer) -> None: ...

    def read(self, name: str) -> pa.Buffer: ...

    def remove(self, name: str) -> None: ...


class MemoryFiles:
    """For stores in memory."""

    def __init__(self) -> None:
        self._files: dict[str, pa.Buffer] = {}

    def names(self) -> list[str]:
        return sorted(self._files)

    def write(self, name: str, content: pa.Buffer) -> None:
        self._files[name] = content

    def read(self, name: str) -> pa.Buffer:
        return self._files[name]

    def remove(self, name: str) -> None:
        self._files.pop(name, None)


class DirectoryFiles:
    """Files in one folder; a file appears whole or not at all."""

    def __init__(self, directory: Path, *, read_only: bool) -> None:
        self._directory, self._read_only = directory, read_only

    def names(self) -> list[str]:
        if not self._directory.is_dir():
            return []
        return sorted(file.name for file in self._directory.iterdir() if _NAME.fullmatch(file.name))

    def write(self, name: str, content: pa.Buffer) -> None:
        if self._read_only:
            raise ReadOnlyStore("snapshots cannot be built in a store opened to be read")
        unfinished = self._directory / f"{name}.part"
        try:
            self._directory.mkdir(exist_ok=True)
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self._directory / name)
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink()
            raise StoreFull(
                "a snapshot file could not be written", got=str(error), hint="Free some space, or allow writing there."
            ) from error

    def read(self, name: str) -> pa.Buffer:
        # Not memory-mapped: a file cut short by someone else would then end this process at the next look.
        return pa.py_buffer((self._directory / name).read_bytes())

    def remove(self, name: str) -> None:
        if self._read_only:
            raise ReadOnlyStore("snapshots cannot be dropped in a store opened to be read")
        (self._directory / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class Shelved:
    """One file's snapshots, ordered by aggregate then version."""

    name: str
    reducer: str
    fingerprint: str
    size: int
    aggregates: list[str]
    version: Int64Array
    position: Int64Array
    timestamp: Int64Array
    states: pa.RecordBatch = field(repr=False)
    spans: dict[str, tuple[int, int]] = field(repr=False)
    """Rows of each aggregate."""


def new_name(fingerprint: str, content: pa.Buffer) -> str:
    """A name nobody used before."""
    return f"{fingerprint[:32]}-{zlib.crc32(content):08x}-{secrets.token_hex(8)}.arrow"


def fingerprint_in(name: str) -> str:
    """The first half of the fingerprint that a file name carries."""
    return name[:32]


def encode(
    reducer: str,
    fingerprint: str,
    store_id: str,
    aggregates: list[str],
    marks: Marks,
    states: pa.RecordBatch,
) -> pa.Buffer:
    """The content of a snapshot file."""
    described = {"eventlab.snapshots": FORMAT, "reducer": reducer, "fingerprint": fingerprint, "store_id": store_id}
    return form.encode(described, aggregates, marks, states)


def decode(name: str, content: pa.Buffer, store_id: str) -> Shelved:
    """A snapshot file's content.

    Raises
    ------
    SnapshotError
        The bytes are not those that were written, belong to another store, or are of another format.
    """
    match = _NAME.fullmatch(name)
    if match is None or f"{zlib.crc32(content):08x}" != match["crc"]:
        raise SnapshotError(f"snapshot file {name} is damaged", hint="lab.snapshots.drop() removes it.")
    kept = form.decode(content)
    if kept.described.get("eventlab.snapshots") != FORMAT or kept.described.get("store_id") != store_id:
        raise SnapshotError(f"snapshot file {name} is of another store or format", hint="lab.snapshots.drop()")
    aggregates = kept.aggregates
    begins = [0, *(at for at in range(1, len(aggregates)) if aggregates[at] != aggregates[at - 1]), len(aggregates)]
    spans = {aggregates[lo]: (lo, hi) for lo, hi in pairwise(begins) if hi > lo}
    return Shelved(
        name,
        kept.described["reducer"],
        kept.described["fingerprint"],
        content.size,
        aggregates,
        kept.marks.version,
        kept.marks.position,
        kept.marks.timestamp,
        states=kept.states,
        spans=spans,
    )


def newest(shelved: Shelved, aggregate: str, version: int, time: int, stop_position: int) -> int | None:
    """Row of the newest snapshot of an aggregate within all three bounds, the first two inclusive."""
    low, high = shelved.spans.get(aggregate, (0, 0))
    if low == high:
        return None
    rows = min(
        int(np.searchsorted(shelved.version[low:high], version, side="right")),
        int(np.searchsorted(shelved.timestamp[low:high], time, side="right")),
        int(np.searchsorted(shelved.position[low:high], stop_position, side="left")),
    )
    return low + rows - 1 if rows else None
