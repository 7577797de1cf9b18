"""Events in memory: a Block in position order, a Slab clustered by aggregate.

Inside a store an aggregate is a small number, which its catalog assigns; frames have the aggregate id again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.events.types import EventType
from eventlab.runtime import thread_pools as cores

Int64Array = npt.NDArray[np.int64]

TEXT = pa.dictionary(pa.int32(), pa.string())
NO_CAUSE = -1

_WORTH_A_CORE = 262_144


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Events of one type in position order.

    Attributes
    ----------
    aggregate : int64 array
        The number of each event's aggregate.
    cause : int64 array or None
        Negative where an event has none; None where no event has one.
    event_id, metadata : pyarrow.StringArray, pyarrow.DictionaryArray or None
        None where no event has one. Metadata is canonical JSON.
    columns : mapping of str to pyarrow.Array
        Payload in canonical types; only the columns that were read.
    """

    type: EventType
    position: Int64Array
    aggregate: Int64Array
    version: Int64Array
    timestamp: Int64Array
    cause: Int64Array | None
    event_id: pa.StringArray | None
    metadata: pa.DictionaryArray | None
    columns: Mapping[str, pa.Array]

    def __len__(self) -> int:
        return len(self.position)

    def take(self, rows: Int64Array, position: Int64Array | None = None) -> Block:
        """The given rows, in the given order; `position` gives their positions if the caller knows them."""
        chosen = pa.array(rows)
        fixed = {"version": self.version, "timestamp": self.timestamp}
        if position is None:
            fixed["position"] = self.position
        if len(self.aggregate):  # a slab's has none
            fixed["aggregate"] = self.aggregate
        if self.cause is not None:
            fixed["cause"] = self.cause
        texts = (self.event_id, self.metadata)
        numbers = [pa.array(array) for array in fixed.values()]
        taken = _taken([*numbers, *texts, *self.columns.values()], chosen)
        found = {name: array.to_numpy() for name, array in zip(fixed, taken, strict=False)}
        event_id, metadata, *payload = taken[len(fixed) :]
        return Block(
            self.type,
            found["position"] if position is None else position,
            found.get("aggregate", self.aggregate),
            found["version"],
            found["timestamp"],
            found.get("cause"),
            event_id,
            metadata,
            dict(zip(self.columns, payload, strict=True)),
        )

    def slice(self, start: int, stop: int) -> Block:
        """Rows ``start:stop``, without copying."""
        if start <= 0 and stop >= len(self):
            return self
        length = max(stop - start, 0)
        return Block(
            self.type,
            self.position[start:stop],
            self.aggregate[start:stop],
            self.version[start:stop],
            self.timestamp[start:stop],
            None if self.cause is None else self.cause[start:stop],
            None if self.event_id is None else self.event_id.slice(start, length),
            None if self.metadata is None else self.metadata.slice(start, length),
            {name: column.slice(start, length) for name, column in self.columns.items()},
        )

    def between(self, first: int, stop: int, names: Collection[str] | None = None) -> Block:
        """Rows whose position lies in ``first:stop``, with only some payload columns if these are named."""
        low, high = np.searchsorted(self.position, (first, stop))
        part = self.slice(int(low), int(high))
        return part if names is None else part.only(names)

    def only(self, names: Collection[str]) -> Block:
        """The same rows with only these payload columns."""
        return replace(self, columns={name: column for name, column in self.columns.items() if name in names})

    def rows(self, rows: Int64Array) -> Block:
        """The given rows, ascending; copies nothing if they follow one another."""
        if len(rows) == 0:
            return self.slice(0, 0)
        low, high = int(rows[0]), int(rows[-1]) + 1
        return self.slice(low, high) if high - low == len(rows) else self.take(rows)


def _taken(arrays: Sequence[pa.Array | None], rows: pa.Array) -> list[Any]:
    """Rows of arrays; long ones on all cores, since most of the time goes to waiting for memory."""

    def take(array: pa.Array | None) -> pa.Array | None:
        return None if array is None else array.take(rows)

    if len(rows) < _WORTH_A_CORE:
        return [take(array) for array in arrays]
    return cores.together([partial(take, array) for array in arrays], "columns")


@dataclass(frozen=True, slots=True, eq=False)
class Slab:
    """Events of one type clustered by aggregate, in version order.

    Attributes
    ----------
    aggregates : int64 array, shape (k,)
        Numbers of the aggregates, ascending.
    offsets : int64 array, shape (k + 1,)
        Rows of ``aggregates[i]`` are ``offsets[i]:offsets[i + 1]``.
    events : Block
        The columns, in this order instead of position order. `Block.aggregate` is left empty.
    """

    aggregates: Int64Array
    offsets: Int64Array
    events: Block


_EMPTY = np.empty(0, dtype=np.int64)


def cluster_order(aggregate: Int64Array) -> Int64Array | None:
    """Permutation that clusters rows by aggregate and keeps their order inside; None if they are clustered."""
    if len(aggregate) < 2 or not (aggregate[1:] < aggregate[:-1]).any():
        return None
    low = int(aggregate.min())
    if int(aggregate.max()) - low < 2**16:  # NumPy sorts 16-bit integers by radix, wider ones five times slower
        return np.argsort((aggregate - low).astype(np.uint16), kind="stable")
    return np.argsort(aggregate, kind="stable")


def running_maxima(values: Int64Array, starts: Int64Array, floors: Int64Array) -> Int64Array:
    """The running maximum in each stretch, at least its floor; `values` itself if none goes back.

    The first stretch starts at row 0.
    """
    back = np.empty(len(values), dtype=np.bool_)
    np.less(values[1:], values[:-1], out=back[1:])
    back[starts] = values[starts] < floors
    if not back.any():
        return values
    stops = np.append(starts[1:], len(values))
    raised = values.copy()
    for run in np.unique(np.searchsorted(starts, np.flatnonzero(back), "right") - 1):
        inside = slice(int(starts[run]), int(stops[run]))
        raised[inside] = np.maximum.accumulate(np.maximum(values[inside], floors[run]))
    return raised


def clustered(blocks: Sequence[Block]) -> Slab:
    """Successive blocks clustered by aggregate; copies nothing if it is one block of a single aggregate."""
    block = concat_blocks(blocks)
    order = cluster_order(block.aggregate)
    events = block if order is None else block.take(order)
    numbers = events.aggregate
    if len(numbers) == 0:
        return Slab(_EMPTY, np.zeros(1, dtype=np.int64), events)
    starts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))
    offsets = np.append(starts, len(numbers)).astype(np.int64)
    return Slab(numbers[starts], offsets, replace(events, aggregate=_EMPTY))


def in_position_order(slab: Slab, first: int, stop: int) -> Block:
    """A slab as a block, in O(rows of the segment): positions are distinct and lie in ``first:stop``."""
    return next(pieces_in_position_order(slab, first, stop, max(len(slab.events), 1)))


def pieces_in_position_order(slab: Slab, first: int, stop: int, most: int) -> Iterator[Block]:
    """A slab as blocks of up to `most` rows, each copied on demand; one block if that needs no copy."""
    events, rows = slab.events, len(slab.events)
    if len(slab.aggregates) == 1:
        yield replace(events, aggregate=np.broadcast_to(slab.aggregates, rows))
        return
    block = replace(events, aggregate=np.repeat(slab.aggregates, np.diff(slab.offsets)))
    if not rows:
        yield block
        return
    if stop - first > 8 * rows:
        order = np.argsort(events.position, kind="stable")
    else:
        places = np.full(stop - first, -1, dtype=np.int64)
        places[events.position - first] = np.arange(rows)
        order = places if rows == len(places) else places[places >= 0]
    for start in range(0, rows, most):
        part = order[start : start + most]
        known = np.arange(first + start, first + start + len(part), dtype=np.int64) if rows == stop - first else None
        yield block.take(part, known)


def concat_blocks(blocks: Sequence[Block]) -> Block:
    """Blocks of one type and the same columns, one after the other."""
    if len(blocks) == 1:
        return blocks[0]
    first = blocks[0]
    causes = None
    if any(block.cause is not None for block in blocks):
        causes = np.concatenate([np.full(len(b), NO_CAUSE) if b.cause is None else b.cause for b in blocks])
    return Block(
        first.type,
        np.concatenate([block.position for block in blocks]),
        np.concatenate([block.aggregate for block in blocks]),
        np.concatenate([block.version for block in blocks]),
        np.concatenate([block.timestamp for block in blocks]),
        causes,
        _joined_text([block.event_id for block in blocks], blocks, pa.string()),
        _joined_text([block.metadata for block in blocks], blocks, TEXT),
        {name: pa.concat_arrays([block.columns[name] for block in blocks]) for name in first.columns},
    )


def _joined_text(arrays: Sequence[pa.Array | None], blocks: Sequence[Block], wanted: pa.DataType) -> pa.Array | None:
    if all(array is None for array in arrays):
        return None
    return pa.concat_arrays([pa.nulls(len(b), wanted) if a is None else a for a, b in zip(arrays, blocks, strict=True)])


def text_codes(array: pa.DictionaryArray) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_] | None]:
    """Codes of a dictionary array, 0 where null, and its validity (None where nothing is null)."""
    codes = array.indices
    if not codes.null_count:
        return codes.to_numpy(), None
    return codes.fill_null(0).to_numpy(), codes.is_valid().to_numpy(zero_copy_only=False)


def is_all_null(array: pa.Array) -> bool:
    """Whether no row holds a value."""
    return bool(array.null_count == len(array))


def decoded(array: pa.DictionaryArray) -> pa.StringArray:
    """A dictionary array as plain strings."""
    return pc.cast(array, pa.string())
