"""Blocks of any events, and segment files that hold one each."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pyarrow as pa

from eventlab.events import columns
from eventlab.events.types import EventType
from eventlab.storage.memory import MemoryStorage
from eventlab.store.blocks import Block, Slab
from eventlab.store.read.frames import STORED_EXTRA
from eventlab.store.segments.files import new_name
from eventlab.store.segments.pruning import ReadBounds
from eventlab.store.segments.segments import Runs, SegmentFile, Segments, Written, write_segment
from eventlab.testing.events import TRADE
from tests.events.strategies import TEXT, builtin_types, payloads, user_types


def name_of(number: int) -> str:
    return f"aggregate/{number}"


def payload_of(declared: EventType, frame: pl.DataFrame) -> dict[str, pa.Array]:
    made = columns.payload_from_frame(declared, frame)
    return dict(zip(made.schema.names, made.columns, strict=True))


@st.composite
def blocks(draw, max_size: int = 24) -> Block:
    """Events of any type as a store would number them, some positions left to other types."""
    declared = draw(user_types() | builtin_types())
    payload = draw(payloads(declared, max_size).filter(len))
    rows = len(payload)
    aggregate = np.array(draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows)), dtype=np.int64)
    gaps = np.array(draw(st.lists(st.sampled_from([1, 1, 1, 5]), min_size=rows, max_size=rows)), dtype=np.int64)
    versions: dict[int, int] = {}
    version = [versions.setdefault(a, 0) or 0 for a in aggregate.tolist()]
    for row, number in enumerate(aggregate.tolist()):
        versions[number] += draw(st.sampled_from([1, 1, 2]))
        version[row] = versions[number]
    time = np.cumsum(draw(st.lists(st.integers(0, 10**12), min_size=rows, max_size=rows))).astype(np.int64)
    causes = draw(st.none() | st.lists(st.integers(-1, 9), min_size=rows, max_size=rows))
    ids = draw(st.none() | st.lists(st.none() | TEXT, min_size=rows, max_size=rows))
    notes = draw(st.none() | st.lists(st.none() | st.sampled_from(["{}", '{"é":"ü"}']), min_size=rows, max_size=rows))
    return Block(
        declared,
        np.cumsum(gaps),
        aggregate,
        np.array(version, dtype=np.int64),
        time,
        None if causes is None else np.array(causes, dtype=np.int64),
        None if ids is None else pa.array(ids, pa.string()),
        None if notes is None else pa.array(notes, pa.string()).dictionary_encode(),
        payload_of(declared, payload),
    )


class Kept:
    """A block in a segment file of its own."""

    def __init__(self, block: Block, codec: str) -> None:
        self.block = block
        self.made: Written = write_segment(block, name_of, codec)
        self.first, self.stop = int(block.position[0]), int(block.position[-1]) + 1
        self.runs = Runs.of(self.made.runs)
        self.storage = MemoryStorage()
        self.file = self.keep(self.made.content)

    def keep(self, content: pa.Buffer) -> SegmentFile:
        """A file as the catalog names it, whatever its bytes have become."""
        name = new_name(self.first, self.made.suffix)
        self.storage.write(name, [content])
        return SegmentFile(
            1, self.first, self.stop, self.block.type, name, self.made.rows, self.made.content.size,
            self.made.footer_bytes, self.made.footer_crc,
        )  # fmt: skip

    def read(self, file: SegmentFile | None = None, runs: Runs | None = None, **bounds) -> Slab:
        names = [field.name for field in self.block.type]
        segments = Segments(self.storage, "here")
        exact = bounds.pop("exact", False)
        runs = self.runs if runs is None else runs
        return segments.read(
            file or self.file, runs, names, bounds=ReadBounds(**bounds), extra=STORED_EXTRA, exact=exact
        )

    def check(self, slab: Slab, file: SegmentFile | None = None) -> None:
        names = [name_of(int(number)) for number in self.runs.aggregate]
        Segments(self.storage, "here").check_runs(file or self.file, self.runs, slab, names)


def told(slab: Slab) -> list[object]:
    """Everything a slab says, comparable bit by bit."""
    events = slab.events
    numbers = (slab.aggregates, slab.offsets, events.position, events.version, events.timestamp)
    said: list[object] = [array.tolist() for array in numbers]
    said.append(None if events.cause is None else np.maximum(events.cause, -1).tolist())
    for column in (events.event_id, events.metadata, *events.columns.values()):
        values = (
            None if column is None else column.to_pylist() if not _is_time(column) else column.view("i8").to_pylist()
        )
        said.append([v.hex() if isinstance(v, float) else v for v in values] if values is not None else None)
    return said


def _is_time(column: pa.Array) -> bool:
    return pa.types.is_timestamp(column.type)


def without_nothing(block: Block) -> Block:
    """A file keeps no column in which no row has a value."""
    cause = block.cause if block.cause is not None and (block.cause >= 0).any() else None
    texts = (None if t is None or t.null_count == len(t) else t for t in (block.event_id, block.metadata))
    event_id, metadata = texts
    return replace(block, cause=cause, event_id=event_id, metadata=metadata)


def numbers_block(rows: int, **made: pa.Array) -> Block:
    payload = {field.name: made.get(field.name, pa.nulls(rows, field.arrow_type)) for field in TRADE}
    ordered = np.arange(rows, dtype=np.int64)
    return Block(TRADE, ordered, np.zeros(rows, dtype=np.int64), ordered + 1, ordered, None, None, None, payload)
