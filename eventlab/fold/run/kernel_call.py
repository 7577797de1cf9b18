"""One fold by a kernel: lays out its arguments, calls it, and turns what it wrote into states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventlab.events.frame import EventTable, Int64Array
from eventlab.fold.declare.layout import Keyed, Ladder, Queue
from eventlab.fold.declare.reducer import ENVELOPE_FIELDS, Reducer
from eventlab.fold.executors import Executor, Span
from eventlab.fold.native.call import Argument, Native, words_of, writable
from eventlab.fold.native.constants import INDEX_DTYPE
from eventlab.fold.result import Folded, emission_schema, property_type, without_columns
from eventlab.fold.run import encode as flat
from eventlab.fold.run.price_ranks import Ranks
from eventlab.fold.stops import MERGED, Stops

_SPARE = 8
"""Spare rows of a table, for keys that one event deletes and touches again."""


class Run:
    """A fold, laid out for a kernel."""

    def __init__(
        self,
        reducer: Reducer,
        states: pa.RecordBatch,
        tables: Mapping[str, EventTable],
        stops: Stops,
        emit: bool,  # noqa: FBT001
    ) -> None:
        layout, dictionary = reducer.layout, flat.Dictionary(reducer.literals)
        self._reducer, self._dictionary, self._emit = reducer, dictionary, emit
        columns = {name: _columns(reducer.event_fields[name], table, dictionary) for name, table in tables.items()}
        self._records = flat.records_in(layout, states, dictionary)
        for table in layout.tables:
            if isinstance(table, Keyed):  # keys of the states need codes before their space is planned
                dictionary.encode(states.column(table.name).flatten().field(table.key))
        self._scratch = _tables_in(reducer, states, tables, stops, dictionary)
        ranks = self._scratch.ranks
        self._stop_count = int(stops.offsets[-1]) if emit else 0
        count = self._stop_count
        self._out_fields = [np.empty(count, layout.dtype[field.name]).reshape(-1) for field in layout.record]
        self._out_properties = [np.empty(count, property_type(reducer, name)[0]) for name in reducer.properties]
        self._offsets = writable(stops.offsets)
        nothing = np.empty(0, np.int32)
        rank = {name: ranks.event.get(name, nothing) if ranks else nothing for name in reducer.handlers}
        # What rows are taken by, in the order of the kernel's arguments: a column beside each start and bound.
        taken_by: dict[str, list[Argument]] = {}
        if stops.order is None:
            taken_by = {name: [writable(tables[name].version), rank[name], *columns[name]] for name in reducer.handlers}
        else:
            rows = [argument for name in reducer.handlers for argument in (rank[name], *columns[name])]
            taken_by[MERGED] = [writable(stops.order), *rows]
        self._starts = [writable(np.asarray(stops.starts[name])) for name in taken_by]
        self._bounds = [writable(np.asarray(stops.bounds[name])) for name in taken_by]
        self._events = list(taken_by.values())

    def arguments(self, first: int, stop: int) -> list[Argument]:
        """The kernel's arguments for the aggregates ``first:stop``; other calls fold the others.

        The kernel counts its aggregates from zero: with any other first index el.Trades loses two fifths of its rate.
        """
        tables = [argument for table in self._scratch.tables for argument in table.arguments(first)]
        emitted = (int(self._emit), self._records[first:stop], *self._out_fields, *self._out_properties)
        events = [
            argument
            for starts, bounds, rest in zip(self._starts, self._bounds, self._events, strict=True)
            for argument in (starts[first:stop], bounds, *rest)
        ]
        return [stop - first, self._offsets[first : stop + 1], *emitted, *tables, *events]

    def run(self, native: Native, parts: Sequence[Span], executor: Executor) -> Folded:
        work: list[Callable[[], None]] = [partial(native, *self.arguments(*part)) for part in parts]
        work[0]() if len(work) == 1 else executor.fold(work)
        columns = self._columns_out(self._records)
        # Where each aggregate has one stop, what is emitted there is the state.
        one_each = self._stop_count == len(self._offsets) - 1 and bool((np.diff(self._offsets) == 1).all())
        return self._folded(columns, emitted=columns if one_each else None)

    def through(self, native: Native) -> Folded:
        """States of the one aggregate at each of its stops; the kernel goes on each time from what it left."""
        count, scratch = int(self._offsets[-1]), self._scratch.tables
        records = np.empty(count, self._records.dtype)
        copies: list[list[Any]] = [[] for _ in scratch]
        one_stop, arrays = np.array([0, 1]), [argument for table in scratch for argument in table.arguments(0)]
        begin, tables = words_of([1, one_stop, int(self._emit), self._records]), words_of(arrays)
        events = [words_of(rest) for rest in self._events]
        starts, out = self._starts, [*self._out_fields, *self._out_properties]
        sizes = [len(values) // count for values in out]
        for at in range(count):
            bounds = [bounds[at : at + 1] for bounds in self._bounds]
            emitted = [values[at * size : (at + 1) * size] for values, size in zip(out, sizes, strict=True)]
            words = [*begin, *words_of(emitted), *tables]
            for start, bound, rest in zip(starts, bounds, events, strict=True):
                words += words_of([start, bound])
                words += rest
            native.run(words)
            starts = bounds
            records[at] = self._records[0]
            for table, several in zip(scratch, copies, strict=True):
                several.append(table.copied())
        self._scratch.tables = [type(table).concat(several) for table, several in zip(scratch, copies, strict=True)]
        columns = self._columns_out(records)
        return self._folded(columns, emitted=columns)

    def _columns_out(self, records: npt.NDArray[Any]) -> list[pa.Array]:
        layout, dictionary = self._reducer.layout, self._dictionary
        fields = flat.fields_out(layout, (records[field.name] for field in layout.record), dictionary)
        return [*fields, *self._scratch.out(self._reducer, dictionary)]

    def _folded(self, columns: list[pa.Array], *, emitted: list[pa.Array] | None) -> Folded:
        """The result with these states. `emitted` are the emitted fields, where the states already have them."""
        reducer, dictionary, layout = self._reducer, self._dictionary, self._reducer.layout
        portable = pa.RecordBatch.from_arrays(columns, schema=layout.arrow_schema)
        if not self._emit:
            return Folded(portable)
        fields = flat.fields_out(layout, self._out_fields, dictionary) if emitted is None else emitted
        values_out = fields[: len(layout.record)]
        for name, values in zip(reducer.properties, self._out_properties, strict=True):
            text = reducer.property_kinds[name] == "str"
            values_out.append(dictionary.decode(values) if text else pa.array(flat.canonical(values)))
        schema = emission_schema(reducer)
        if not schema.names:
            return Folded(portable, without_columns(self._stop_count))
        return Folded(portable, pa.RecordBatch.from_arrays(values_out, schema=schema))


def _columns(fields: Sequence[str], table: EventTable, dictionary: flat.Dictionary) -> list[Argument]:
    made: list[Argument] = []
    for name in fields:
        if name in ENVELOPE_FIELDS:
            made.append(writable(getattr(table, name)))
        elif pa.types.is_dictionary(table.columns[name].type):
            made += dictionary.shifted(table.columns[name])
        else:
            made.append(flat.numbers(table.columns[name]))
    return made


@dataclass
class _TableScratch:
    ranks: Ranks | None
    tables: list[Any]

    def out(self, reducer: Reducer, dictionary: flat.Dictionary) -> list[Any]:
        columns = []
        for table, scratch in zip(reducer.layout.tables, self.tables, strict=True):
            if isinstance(table, Queue):
                columns.append(flat.queue_out(table, scratch, dictionary))
            elif isinstance(table, Keyed):
                columns.append(flat.keyed_out(table, scratch, dictionary))
            else:
                columns.append(flat.ladder_out(table, scratch))
        return columns


def _tables_in(
    reducer: Reducer,
    states: pa.RecordBatch,
    tables: Mapping[str, EventTable],
    stops: Stops,
    dictionary: flat.Dictionary,
) -> _TableScratch:
    layout = reducer.layout
    if not layout.tables:
        return _TableScratch(None, [])
    first, ends = stops.rows(tables)
    rows = {name: np.maximum(ends[name] - first[name], 0) for name in reducer.handlers}
    ranks = None
    if layout.of(Ladder):
        levels = [flat.ladder_levels(states.column(ladder.name))[:2] for ladder in layout.of(Ladder)]
        prices = {name: flat.numbers(tables[name].columns["price"]) for name in sorted(reducer.priced)}
        ranks = Ranks.of(prices, first, ends, levels)
    # Keys come from constants, from text of events and from the state, which bounds the rows of a table.
    texts = {name: _text_fields(reducer, name) for name in reducer.handlers}
    touched = sum((rows[name] * texts[name] for name in rows), np.zeros(states.num_rows, np.int64))
    own = len(reducer.literals) + len(layout.scalars) + sum(_lengths(states, table) for table in layout.tables)
    codes = len(dictionary)
    # A row deleted during an event is reused only after that event.
    spare = _SPARE if reducer.removes_rows else 0
    capacity = np.minimum(touched + own, codes) + spare
    pushing = (rows[name] for name in rows if name in reducer.pushes_rows)
    pushes: Int64Array = 2 * sum(pushing, np.zeros(states.num_rows, np.int64))
    found: list[Any] = []
    for table in layout.tables:
        column = states.column(table.name)
        if isinstance(table, Queue):
            found.append(flat.queue_in(table, column, capacity, pushes, dictionary, codes, INDEX_DTYPE))
        elif isinstance(table, Keyed):
            found.append(flat.keyed_in(table, column, capacity, dictionary, codes))
        else:
            found.append(flat.ladder_in(table, column, ranks))  # type: ignore[arg-type]
    return _TableScratch(ranks, found)


def _lengths(states: pa.RecordBatch, table: Any) -> Int64Array:
    offsets: Int64Array = states.column(table.name).offsets.to_numpy().astype(np.int64)
    return np.diff(offsets)


def _text_fields(reducer: Reducer, name: str) -> int:
    declared = reducer.event_types[name]
    return sum(1 for field in reducer.columns[name] if declared.field(field).is_text)
