"""Merged streams: the kernel's order is that of a plain sort, and pieces of any length give the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.fold.native import order_kernels
from eventlab.fold.native.function import Function
from eventlab.timetravel.marks import merge
from tests.fold.helpers import bits
from tests.fold.kitchen import Tick
from tests.timetravel.desks import Desk
from tests.timetravel.test_marked import MARKS, OWN, moments, plain, rows_of, worlds
from tests.timetravel.test_marked import built as built_of
from tests.timetravel.worlds import SECOND, T0

merge_runs = Function(order_kernels.merge_runs)


def windows_of(runs, cuts):
    """Where each run's rows of each window begin, for windows that end with the times `cuts`."""
    starts = np.cumsum([0, *map(len, runs)])[:-1].tolist()
    ends = [[sum(time <= cut for time, _ in run) for run in runs] for cut in sorted(cuts)]
    found = [[0] * len(runs), *ends, [len(run) for run in runs]]
    return np.array([[start + row for start, row in zip(starts, rows, strict=True)] for rows in found]).reshape(-1)


def merged(runs, cuts=()):
    """The kernel's times, rows and places of the first half of the rows."""
    pairs = [pair for run in runs for pair in run]
    timestamp, position = (np.array([pair[at] for pair in pairs], np.int64) for at in range(2))
    count = len(pairs)
    wide = [np.empty(count, np.int64) for _ in range(4)]
    narrow = [np.empty(count, np.int32) for _ in range(2)]
    places = np.empty(count // 2, np.int64)
    windows = windows_of(runs, cuts)
    bounds = np.empty(len(runs) + 1, np.int64)
    merge_runs(
        timestamp, position, np.arange(count), windows, bounds,
        wide[0], narrow[0], wide[1], narrow[1], wide[2], wide[3], places,
    )  # fmt: skip
    return wide[2].tolist(), wide[3].tolist(), places.tolist()


@st.composite
def runs_of_pairs(draw):
    """Runs that ascend by (timestamp, position); positions are distinct, timestamps often equal."""
    highest = draw(st.sampled_from([0, 1, 5, 1_000]))
    times = draw(st.lists(st.integers(-highest, highest), max_size=80))
    positions = draw(st.permutations(range(len(times))))
    owner = draw(st.lists(st.integers(0, 6), min_size=len(times), max_size=len(times)))
    rows = list(zip(owner, times, positions, strict=True))
    return [sorted((t, p) for o, t, p in rows if o == run) for run in range(7)]


@settings(max_examples=300)
@given(runs_of_pairs(), st.lists(st.integers(-1_000, 1_000), max_size=3))
def test_runs_are_merged_as_a_plain_sort_does(runs, cuts):
    pairs = [pair for run in runs for pair in run]
    order = sorted(range(len(pairs)), key=pairs.__getitem__)
    times, rows, places = merged(runs, cuts)
    assert rows == order
    assert times == [pairs[row][0] for row in order]
    assert places == [order.index(row) for row in range(len(pairs) // 2)]


def test_many_rows_of_one_time_are_ordered_by_position():
    positions = np.random.default_rng(0).permutation(20_000)
    runs = [sorted((7, int(p)) for p in part) for part in np.array_split(positions, 13)]
    pairs = [pair for run in runs for pair in run]
    assert merged(runs)[1] == np.argsort([p for _, p in pairs]).tolist()


@settings(max_examples=40)
@given(
    worlds(),
    MARKS,
    st.data(),
    st.sampled_from([el.Portfolio, Desk]),
    st.booleans(),
    st.integers(1, 40),
    st.integers(1, 3),
)
def test_pieces_of_any_length_give_the_same_states_and_rows(made, mark_with, data, reducer, interpret, length, windows):
    world = built_of(made)
    wanted = data.draw(st.lists(moments(world), min_size=1, max_size=5), label="moments")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "WINDOW_EVENTS", length)
        patch.setattr(merge, "PIECE_WINDOWS", windows)
        patch.setattr(merge, "_SAMPLE_STEPS", (1, 4))
        patch.setattr(merge, "_FEW", 0)
        found = world.lab.history(reducer, OWN, wanted, mark_with=mark_with, tables=True, interpret=interpret)
        assert rows_of(found) == [plain(world, reducer, mark_with, moment) for moment in wanted]
        states = [world.lab.state(reducer, OWN, one, mark_with=mark_with, interpret=interpret) for one in wanted]
        own = world.lab.history(reducer, OWN, mark_with=mark_with, interpret=interpret)
        bars = world.lab.history(reducer, OWN, every="3s", mark_with=mark_with, interpret=interpret)
    assert [bits(state.to_dict()) for state in states] == rows_of(found)
    assert own.equals(world.lab.history(reducer, OWN, mark_with=mark_with, interpret=interpret))
    assert bars.equals(world.lab.history(reducer, OWN, every="3s", mark_with=mark_with, interpret=interpret))


def test_a_stream_of_many_pieces_is_cut_at_event_times(monkeypatch):
    monkeypatch.setattr(merge, "WINDOW_EVENTS", 32)
    monkeypatch.setattr(merge, "PIECE_WINDOWS", 2)
    monkeypatch.setattr(merge, "_SAMPLE_STEPS", (1, 4))
    counts, whole = [], merge.MergedStream.pieces

    def pieces(stream):
        for piece in whole(stream):
            counts.append(piece.count)
            yield piece

    monkeypatch.setattr(merge.MergedStream, "pieces", pieces)
    with el.open(":memory:") as lab:
        lab.append(OWN, Tick("A", "a"), timestamp=T0)
        times = [T0 + n * SECOND for n in range(1, 501)]
        for name in ("market/A", "market/B"):
            lab.append(name, [el.MarketData("A", float(n), 1.0) for n in range(500)], timestamp=times)
        assert lab.state(Desk, OWN, mark_with="market/*").seen_time == times[-1]
    assert sum(counts) == 1_001
    assert len(counts) > 10
    assert max(counts) <= 2 * 64
