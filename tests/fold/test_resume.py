"""Folding on from a state is folding all: also where the state went through its portable form and Arrow's bytes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.fold.declare.layout import digest
from eventlab.fold.fold import derive, fold
from eventlab.fold.stops import Stops, tables_of
from tests.examples import examples
from tests.fold.helpers import compiled_only, digests, folded, frame_of, rows, stops_of
from tests.fold.kitchen import Book, Level, Merged, Tables, Tick, Words
from tests.fold.strategies import (
    BOOK_CHANGES,
    KNOWN_LEVELS,
    PORTFOLIO_CHANGES,
    SIGNALS,
    TICKS,
    TOCKS,
    TRADES,
    aggregates,
)

SEQUENCES = {
    Words: aggregates(TICKS),
    Tables: aggregates(TICKS),
    Merged: aggregates(TICKS, TOCKS, TRADES),
    Book: aggregates(KNOWN_LEVELS),
    el.Trades: aggregates(TRADES),
    el.OrderBook: aggregates(BOOK_CHANGES),
    el.Signals: aggregates(SIGNALS),
    el.Portfolio: aggregates(PORTFOLIO_CHANGES),
}


def through_bytes(batch):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return pa.ipc.open_stream(sink.getvalue()).read_next_batch()


@pytest.mark.parametrize("reducer", SEQUENCES, ids=lambda reducer: reducer.name)
def test_folding_in_two_parts_is_folding_at_once(reducer):
    @examples(12)
    @given(SEQUENCES[reducer], st.data(), st.booleans(), st.booleans())
    def agree(events_of, data, first, second):
        frame = frame_of(events_of)
        tables, count = tables_of(reducer, frame), len(events_of)
        cuts = [data.draw(st.integers(0, len(events)), label="cut") for events in events_of]
        whole = folded(reducer, events_of, interpret=True)
        head = stops_of(reducer, frame, [[cut] for cut in cuts])
        half = fold(reducer, frame.aggregates, reducer.layout.initial(count), tables, head, interpret=first).states
        ends = {name: table.offsets[1:] for name, table in tables.items()}
        tail = Stops(np.arange(count + 1), head.ends, ends)
        back = through_bytes(half)
        assert digests(back) == digests(half)
        rest = fold(reducer, frame.aggregates, back, tables, tail, emit=True, interpret=second)
        assert digests(rest.states) == digests(whole.states)
        assert rows(rest.emitted) == rows(whole.emitted)

    agree()


@examples(12)
@given(aggregates(TICKS), st.booleans())
def test_states_may_be_folded_in_any_order_and_company(events_of, interpret):
    together = digests(folded(Tables, events_of, interpret=interpret).states)
    alone = [digests(folded(Tables, [events], interpret=interpret).states)[0] for events in events_of]
    backwards = digests(folded(Tables, events_of[::-1], interpret=interpret).states)[::-1]
    assert together == alone == backwards


def test_a_slice_of_states_folds_like_the_states():
    events = [[Tick("a", "w", "buy", 1.0, 1)], [Tick("b", "v", "buy", 2.0, 1)], [Tick("c", None, None, None, None)]]
    states = folded(Tables, events, interpret=True).states
    for interpret in (True, False):
        again = [[Tick("z", "v", "sell", 3.0, 1)]] * 2
        found = folded(Tables, again, interpret=interpret, states=states.slice(1, 2))
        copied = pa.RecordBatch.from_pylist(states.slice(1, 2).to_pylist(), schema=states.schema)
        assert digests(found.states) == digests(folded(Tables, again, interpret=True, states=copied).states)


def test_what_is_derived_from_states_is_what_the_fold_emitted():
    events = [[Tick("a", "w", "buy", 1.5, 1), Tick("a", "v", None, None, 1)], []]
    found = folded(Tables, events, interpret=True)
    for interpret in (True, False):
        assert rows(derive(Tables, ["a", "b"], found.states, interpret=interpret)) == rows(found.emitted)


def test_no_aggregates_and_no_events_are_folded_too():
    for reducer in SEQUENCES:
        for interpret in (True, False):
            assert folded(reducer, [], interpret=interpret).states.num_rows == 0
            with compiled_only() if not interpret else pytest.MonkeyPatch.context():
                empty = folded(reducer, [[], []], interpret=interpret).states
            assert digests(empty) == digests(reducer.layout.initial(2))


def test_a_digest_tells_states_apart_by_bits_but_not_by_how_nan_was_made():
    def of(price, size=1.0):
        schema = Book.layout.arrow_schema
        row = {"bids": [{"price": price, "size": size}], "asks": [], "refused": 0}
        return digest(pa.RecordBatch.from_pylist([row], schema=schema), 0)

    other_nan = np.frombuffer(np.uint64(0xFFF8000000000001).tobytes(), np.float64)[0]
    assert of(0.0) != of(-0.0)
    assert of(1.0) != of(1.0000000000000002)
    assert of(1.0, np.nan) == of(1.0, float(other_nan))
    assert len({of(1.0), of(2.0), of(1.0, 2.0)}) == 3


def test_levels_with_equal_prices_of_both_zeros_are_one_level():
    events = [[Level("set", 0.0, 1.0), Level("set", -0.0, 4.0)]]
    for interpret in (True, False):
        found = folded(Book, events, interpret=interpret).states.to_pylist()[0]
        assert str(found["bids"]) == "[{'price': 0.0, 'size': 4.0}]"
