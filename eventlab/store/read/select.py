"""Selecting events from blocks in memory: what a store needs to answer `frames` and `rows`, wherever it keeps them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from eventlab.events.columns import null_column
from eventlab.events.frame import EventFrame, EventTable
from eventlab.events.types import EventType
from eventlab.events.upcast import check_readable, columns_needed, upcast_columns
from eventlab.store.blocks import Block, Int64Array, Slab, clustered, concat_blocks
from eventlab.store.catalog.schemas import check_wanted, meaning
from eventlab.store.segments.pruning import ReadBounds
from eventlab.store.types import Selection


@dataclass(frozen=True, slots=True)
class Upcast:
    """How stored events become events of the wanted version: `columns` are read, and give `wanted`."""

    declared: EventType
    columns: tuple[str, ...]
    wanted: tuple[str, ...]

    def of(self, block: Block) -> Block:
        """The same events with the wanted columns of the wanted version."""
        if block.type is self.declared:
            return block
        rows = len(block)
        if rows:
            made = upcast_columns(block.type, self.declared, block.columns, self.wanted, rows)
        else:
            made = {name: null_column(self.declared.field(name), 0) for name in self.wanted}
        return replace(block, type=self.declared, columns=made)

    def slab(self, slab: Slab) -> Slab:
        """As `of`, for events clustered by aggregate."""
        return slab if slab.events.type is self.declared else replace(slab, events=self.of(slab.events))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Request(ReadBounds):
    """A selection with aggregates as numbers, and an event type for each name.

    Attributes
    ----------
    columns : mapping of str to collection of str
        Payload columns by event type name.
    others : bool
        Also the envelopes of all further event types.
    numbers : int64 array or None
        The wanted aggregates, ascending; None means all.
    types : mapping of str to EventType
        The version in which a type's columns are wanted; columns of other types stay as stored.
    """

    columns: Mapping[str, Collection[str]]
    others: bool
    numbers: Int64Array | None
    types: Mapping[str, EventType]

    @classmethod
    def of(
        cls,
        selection: Selection,
        numbers: Mapping[str, int],
        newest: Mapping[str, EventType],
        versions: Iterable[EventType],
        stop_position: int,
        **more: Any,
    ) -> Self:
        """The request that a selection makes of a log.

        Parameters
        ----------
        numbers : mapping of str to int
            Aggregate ids and their numbers.
        newest : mapping of str to EventType
            The newest version of each type in the store.
        versions : iterable of EventType
            All versions in the store.
        stop_position : int
            The end of the log.
        more
            Fields of a subclass.

        Raises
        ------
        SchemaMismatch, MissingUpcaster
            Stored events cannot be read in the wanted version.
        """
        wanted, stop = selection.aggregates, selection.stop_position
        chosen = None if wanted is None else np.array(sorted({numbers[w] for w in wanted if w in numbers}), np.int64)
        types = _wanted_types(selection, newest, versions)
        return cls(
            columns=selection.columns,
            others=selection.others,
            numbers=chosen,
            types=types,
            after={numbers[name]: version for name, version in selection.after_version.items() if name in numbers},
            stop_position=stop_position if stop is None else min(stop, stop_position),
            until_version=selection.until_version,
            until_time=selection.until_time,
            start_position=selection.start_position,
            since_time=selection.since_time,
            **more,
        )

    def upcast(self, stored: EventType) -> Upcast | None:
        """How to read stored events of a type as wanted; None if none are wanted."""
        columns = self.columns.get(stored.name, () if self.others else None)
        return None if columns is None else upcast_for(stored, self.types.get(stored.name), columns)


def upcast_for(stored: EventType, wanted: EventType | None, columns: Collection[str]) -> Upcast:
    """How to read some payload columns of stored events; without a wanted version, as they are.

    Raises
    ------
    SchemaMismatch, MissingUpcaster
        See `check_readable`.
    """
    chosen = tuple(columns)
    if wanted is None or wanted is stored or not columns or wanted == stored:
        return Upcast(stored, chosen, chosen)
    check_readable(stored, wanted)
    return Upcast(wanted, columns_needed(stored, wanted, chosen), chosen)


def _wanted_types(
    selection: Selection, newest: Mapping[str, EventType], versions: Iterable[EventType]
) -> dict[str, EventType]:
    """The versions in which payload columns are wanted, of the types that a store has."""
    types = {
        name: selection.types.get(name) or meaning(name, newest)
        for name, columns in selection.columns.items()
        if columns and name in newest
    }
    for name, declared in types.items():
        for column in selection.columns[name]:
            declared.field(column)
    check_wanted(types, versions)
    return types


def slabs(blocks: Iterable[Block], request: Request) -> Iterator[Slab]:
    """The wanted events of blocks in position order, one slab for each version of a type that has any."""
    by_type: dict[tuple[str, int], list[Block]] = {}
    for block in blocks:
        by_type.setdefault((block.type.name, block.type.schema_version), []).append(block)
    for found in by_type.values():
        upcast = request.upcast(found[0].type)
        if upcast is None:
            continue
        chosen = [part for block in found if len(part := wanted_rows(block, upcast.columns, request))]
        if chosen:
            yield upcast.slab(clustered(chosen))


def rows(blocks: Iterable[Block], name: str, request: Request) -> Iterator[Block]:
    """The wanted events of one type from blocks in position order, with event times within the request's bounds."""
    for block in blocks:
        if block.type.name != name:
            continue
        upcast = upcast_for(block.type, request.types.get(name), request.columns[name])
        chosen = within_times(wanted_rows(block, upcast.columns, request), request)
        if len(chosen):
            yield upcast.of(chosen)


def at_positions(blocks: Iterable[Block], positions: Int64Array) -> Block | None:
    """The rows of blocks in position order at some positions, in the order given; None unless all are there."""
    order = np.argsort(positions)
    found = []
    for block in blocks:
        at = np.flatnonzero(np.isin(block.position, positions))
        if len(at):
            found.append(block.take(at))
    if sum(map(len, found)) < len(positions):
        return None
    return concat_blocks(found).take(np.argsort(order, kind="stable"))


def event_frame(slabs: Sequence[Slab], names: Sequence[str]) -> EventFrame:
    """Slabs of one stretch of the log as a frame; `names` are the aggregate ids by number."""
    slabs = _one_a_name(slabs)
    union = slabs[0].aggregates
    if any(not np.array_equal(slab.aggregates, union) for slab in slabs[1:]):
        union = np.unique(np.concatenate([slab.aggregates for slab in slabs]))
    tables = {}
    for slab in slabs:
        events = slab.events
        offsets = slab.offsets
        if slab.aggregates is not union:
            counts = np.zeros(len(union) + 1, dtype=np.int64)
            counts[1 + np.searchsorted(union, slab.aggregates)] = np.diff(slab.offsets)
            offsets = np.cumsum(counts)
        tables[events.type.name] = EventTable(
            events.type, offsets, events.position, events.version, events.timestamp, events.columns
        )
    return EventFrame([names[number] for number in union.tolist()], tables)


def _one_a_name(slabs: Sequence[Slab]) -> Sequence[Slab]:
    """The slabs with the versions of each type merged."""
    by_name: dict[str, list[Slab]] = {}
    for slab in slabs:
        by_name.setdefault(slab.events.type.name, []).append(slab)
    if len(by_name) == len(slabs):
        return slabs
    return [found[0] if len(found) == 1 else _one_slab(found) for found in by_name.values()]


def _one_slab(slabs: Sequence[Slab]) -> Slab:
    ordered = sorted(slabs, key=lambda slab: int(slab.events.position.min()))
    blocks = [replace(s.events, aggregate=np.repeat(s.aggregates, np.diff(s.offsets))) for s in ordered]
    return clustered(blocks)  # the sort is stable, and a store takes no older version after a newer one


def since(slab: Slab, position: int) -> Slab:
    """The events of a slab from a position on."""
    rows = np.flatnonzero(slab.events.position >= position)
    if len(rows) == len(slab.events):
        return slab
    counts = np.diff(np.searchsorted(rows, slab.offsets))
    some = counts > 0
    return Slab(slab.aggregates[some], np.concatenate([[0], np.cumsum(counts[some])]), slab.events.rows(rows))


def wanted_rows(block: Block, columns: Collection[str], request: Request) -> Block:
    """The rows of a block that a request wants by position, aggregate and version, with some payload columns."""
    block = block.between(request.start_position, request.stop_position, columns)
    numbers = request.numbers
    if numbers is None:
        if not request.after:
            return block
        numbers = np.unique(block.aggregate)
    if len(numbers) == 1:
        wanted = block.aggregate == numbers[0]
        floor = request.after.get(int(numbers[0]), 0)
        if floor:
            wanted &= block.version > floor
    else:
        wanted = np.isin(block.aggregate, numbers)
        if request.after:
            known, places = np.unique(block.aggregate, return_inverse=True)
            wanted &= block.version > request.floors(known)[places]
    return block.rows(np.flatnonzero(wanted))


def within_times(block: Block, bounds: ReadBounds) -> Block:
    """The events of a block with event times within the bounds."""
    if bounds.since_time is None and bounds.until_time is None:
        return block
    wanted = np.ones(len(block), dtype=bool)
    if bounds.since_time is not None:
        wanted &= block.timestamp >= bounds.since_time
    if bounds.until_time is not None:
        wanted &= block.timestamp <= bounds.until_time
    return block.rows(np.flatnonzero(wanted))
