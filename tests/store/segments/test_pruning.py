"""Hints about what need not be read never change what is answered."""

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import eventlab as el
from eventlab.store.api import Selection
from eventlab.store.segments import encodings as encoding
from eventlab.testing.events import TRADE

ROWS = 3_000


@pytest.fixture(scope="module")
def lab():
    yield from made(lambda rows: rows // 3)


@pytest.fixture(scope="module")
def backdated():
    """Every event time is up to 700 below what it would be in order, and some are from the very beginning."""
    rng = np.random.default_rng(3)

    def times(rows):
        late = rows // 3 - pl.Series(rng.integers(0, 700, len(rows)) * (rng.random(len(rows)) < 0.2))
        return pl.Series(np.where(rng.random(len(rows)) < 0.001, 3, late.to_numpy()))

    yield from made(times)


def made(of_rows):
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(encoding, "ROW_GROUP", 256)
    with el.open(":memory:") as lab:
        for first in (0, ROWS):
            times = of_rows(pl.Series(range(first, first + ROWS), dtype=pl.Int64))
            frame = pl.DataFrame({"symbol": ["A", "B", "B"] * (ROWS // 3), "price": 1.5, "volume": 2.0})
            lab.append_frame(
                el.MarketData, frame.with_columns(timestamp=times), aggregate_id="market/{symbol}", late="accept"
            )
            lab.seal()
        monkeypatch.undo()
        yield lab


@given(
    after=st.integers(0, 2 * ROWS) | st.sampled_from([256, 512, 768]),  # where row groups of market/A end
    version=st.none() | st.integers(0, 2 * ROWS) | st.sampled_from([256, 512, 768]),
    time=st.none() | st.integers(-1, ROWS),
    since=st.none() | st.integers(-1, ROWS),
)
@example(after=256, version=256, time=None, since=None)
@example(after=256, version=None, time=255, since=255)
def test_a_hint_leaves_out_later_and_earlier_events_only(lab, backdated, after, version, time, since):
    for filled in (lab, backdated):
        check_hints(filled, after, version, time, since)


@given(time=st.integers(-700, ROWS), length=st.integers(0, ROWS))
def test_events_of_a_time_are_those_with_such_times(backdated, time, length):
    store, columns = backdated.store, ["position", "timestamp"]
    whole = pl.concat(store.rows(TRADE, columns=columns))
    found = list(store.rows(TRADE, columns=columns, start=time, stop=time + length))
    wanted = whole.filter(pl.col("timestamp").to_physical().is_between(time, time + length, closed="left"))
    assert pl.concat([wanted.clear(), *found]).equals(wanted)


def check_hints(lab, after, version, time, since):
    aggregates = ["market/A", "market/B"]
    hinted = Selection(
        {"market_data": ["price", "side"]},
        aggregates=aggregates,
        after_version=dict.fromkeys(aggregates, after),
        until_version=version,
        until_time=time,
        since_time=since,
    )
    kept = {name: set() for name in aggregates}
    for frame in lab.store.frames(hinted):
        for a, name in enumerate(frame.aggregates):
            table = frame.tables["market_data"]
            kept[name].update(table.version[table.offsets[a] : table.offsets[a + 1]].tolist())
    for name in aggregates:
        for row in lab.events(el.MarketData, name).select("version", pl.col("timestamp").to_physical()).iter_rows():
            if row[0] <= after:
                assert row[0] not in kept[name]
            elif (
                (version is None or row[0] <= version)
                and (time is None or row[1] <= time)
                and (since is None or row[1] >= since)
            ):
                assert row[0] in kept[name]


def test_a_hint_saves_reading(lab):
    def read(aggregate="market/B", **hints):
        frames = lab.store.frames(Selection({"market_data": []}, aggregates=[aggregate], **hints))
        return sum(len(frame) for frame in frames)

    assert read() == 4_000
    assert read(until_version=10) <= 512
    assert read(until_time=3) <= 512
    assert read("market/A", since_time=2 * ROWS // 3 - 3) <= 512
    assert read(since_time=2 * ROWS) == 0


@pytest.fixture(scope="module")
def beside():
    """Three aggregates in each file; the event times of the one in the middle go back now and then."""
    with pytest.MonkeyPatch.context() as patched, el.open(":memory:") as lab:
        patched.setattr(encoding, "ROW_GROUP", 64)
        times, rng = np.arange(ROWS) // 3, np.random.default_rng(1)
        some = rng.choice(np.arange(1, ROWS, 3), 60, replace=False)  # rows of market/B
        times[some] -= rng.integers(0, times[some] + 1)
        frame = pl.DataFrame({"symbol": ["A", "B", "C"] * (ROWS // 3), "price": 1.5, "volume": 2.0})
        frame = frame.with_columns(timestamp=pl.Series(times))
        lab.append_frame(el.MarketData, frame, aggregate_id="market/{symbol}", late="accept")
        lab.seal()
        yield lab


@given(st.integers(-1, ROWS // 3), st.integers(0, 40), st.sampled_from(["market/A", "market/B", "market/C", None]))
def test_no_event_of_a_time_is_left_out_beside_an_aggregate_whose_times_go_back(beside, first, length, name):
    last, names = first + length, None if name is None else [name]
    ns = pl.col("timestamp").to_physical()
    wanted = beside.events(el.MarketData, name).filter((ns >= first) & (ns < last))["position"].to_list()
    rows = beside.store.rows(TRADE, aggregates=names, start=first, stop=last)
    assert [position for frame in rows for position in frame["position"]] == wanted
    hinted = Selection({}, others=True, aggregates=names, since_time=first, until_time=last - 1)
    kept = {at for frame in beside.store.frames(hinted) for at in frame.tables["market_data"].position.tolist()}
    assert kept.issuperset(wanted)


def test_times_that_go_back_cost_other_aggregates_no_reading(beside):
    def read(aggregate, time):
        hinted = Selection({}, others=True, aggregates=[aggregate], since_time=time, until_time=time)
        return sum(len(frame) for frame in beside.store.frames(hinted))

    for name in ("market/A", "market/C"):
        assert max(read(name, time) for time in range(0, ROWS // 3, 50)) <= 128
