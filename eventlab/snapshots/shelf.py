"""Where snapshots lie: Arrow IPC files, each with its reducer's fingerprint and its own checksum in the name.

Snapshots are disposable. A file that cannot be read, or whose bytes are not what was written, is as good as absent.
"""

from __future__ import annotations

import os
import re
import secrets
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from eventlab.errors import ReadOnlyStore, SnapshotError, StoreFull
from eventlab.events.frame import Int64Array

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
    """Files in one folder, memory-mapped; a file appears whole or not at all."""

    def __init__(self, directory: Path, *, read_only: bool) -> None:
        self._directory, self._read_only = directory, read_only

    def names(self) -> list[str]:
        if not self._directory.is_dir():
            return []
        return sorted(name for name in os.listdir(self._directory) if _NAME.fullmatch(name))

    def write(self, name: str, content: pa.Buffer) -> None:
        if self._read_only:
            raise ReadOnlyStore("snapshots cannot be built in a store opened to be read")
        self._directory.mkdir(exist_ok=True)
        unfinished = self._directory / f"{name}.part"
        try:
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self._directory / name)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise StoreFull("a snapshot file could not be written", got=str(error), hint="Free some space.") from error

    def read(self, name: str) -> pa.Buffer:
        with pa.memory_map(str(self._directory / name)) as file:
            return file.read_buffer()

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
    marks: tuple[Int64Array, Int64Array, Int64Array],
    states: pa.RecordBatch,
) -> pa.Buffer:
    """The content of a snapshot file."""
    envelope = [pa.array(aggregates, pa.string()), *(pa.array(column) for column in marks)]
    names = ["aggregate_id", "version", "position", "timestamp"]
    described = {"eventlab.snapshots": FORMAT, "reducer": reducer, "fingerprint": fingerprint, "store_id": store_id}
    table = pa.table(
        [*envelope, *states.columns], names=[*names, *(f"state.{name}" for name in states.schema.names)]
    ).replace_schema_metadata(described)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        for batch in table.combine_chunks().to_batches():
            writer.write_batch(batch)
    return sink.getvalue()


def decode(name: str, content: pa.Buffer, store_id: str, schema: pa.Schema | None) -> Shelved:
    """A snapshot file's content.

    Raises
    ------
    SnapshotError
        The bytes are not those that were written, belong to another store, or are of another format.
    """
    match = _NAME.fullmatch(name)
    if match is None or f"{zlib.crc32(content):08x}" != match["crc"]:
        raise SnapshotError(f"snapshot file {name} is damaged", hint="lab.snapshots.drop() removes it.")
    reader = pa.ipc.open_file(content)
    described = {key.decode(): value.decode() for key, value in (reader.schema.metadata or {}).items()}
    if described.get("eventlab.snapshots") != FORMAT or described.get("store_id") != store_id:
        raise SnapshotError(f"snapshot file {name} is of another store or format", hint="lab.snapshots.drop()")
    table = reader.read_all()
    batch = table.combine_chunks().to_batches()[0]
    names = [column for column in batch.schema.names if column.startswith("state.")]
    states = pa.RecordBatch.from_arrays(
        [batch.column(column) for column in names], names=[column.removeprefix("state.") for column in names]
    )
    if schema is not None:
        states = pa.RecordBatch.from_arrays(states.columns, schema=schema)
    aggregates = batch.column("aggregate_id").to_pylist()
    begins = [0, *(at for at in range(1, len(aggregates)) if aggregates[at] != aggregates[at - 1]), len(aggregates)]
    spans = {aggregates[lo]: (lo, hi) for lo, hi in zip(begins[:-1], begins[1:], strict=True) if hi > lo}
    return Shelved(
        name,
        described["reducer"],
        described["fingerprint"],
        content.size,
        aggregates,
        *(batch.column(column).to_numpy() for column in ("version", "position", "timestamp")),
        states=states,
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
