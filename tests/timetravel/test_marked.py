"""States across aggregates are folds of own and routed events in one order, and never look ahead."""

from __future__ import annotations

import fnmatch

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import AsOfError, EventlabError, FoldError, InvalidEvent, ReducerError, UnknownAggregate
from tests import naive_marks
from tests.fold.helpers import bits, compiled_only
from tests.fold.kitchen import Tick, Unheard
from tests.fold.strategies import PORTFOLIO_CHANGES, PRICES
from tests.timetravel.desks import Desk, News
from tests.timetravel.worlds import SECOND, T0, World, clock

OWN, OTHER = "portfolio/one", "portfolio/two"
MARKETS = ("market/A", "market/rest")
TWINS = {el.Portfolio.name: naive_marks.Portfolio, Desk.name: naive_marks.Desk}
SYMBOLS = st.sampled_from(["A", "B", "C", "D"])
TRADES = st.builds(el.MarketData, SYMBOLS, PRICES, st.just(1.0))
EVENTS = st.one_of(
    TRADES,
    TRADES,
    PORTFOLIO_CHANGES,
    PORTFOLIO_CHANGES,
    st.builds(Tick, SYMBOLS, st.sampled_from(["a", "b", None])),
    st.builds(Tick, SYMBOLS, st.sampled_from(["a", "b", None])),
    st.builds(el.Funding, SYMBOLS, st.just(0.01)),
    st.builds(el.Quote, SYMBOLS, PRICES, st.just(1.0), PRICES, st.just(1.0)),
    st.builds(News, st.sampled_from(["a", "b", "c", None])),
    st.builds(Unheard),
)
PLACES = st.sampled_from([OWN, OWN, OTHER, *MARKETS, *MARKETS])
MARKS = st.sampled_from(["market/*", "*", "market/A", ["market/rest", OTHER], ["market/A", "market/*"]])


@st.composite
def worlds(draw, most=6):
    """Commits in which each aggregate's time goes its own way: later positions may have earlier times."""
    seconds, made = {}, []
    for _ in range(draw(st.integers(1, most))):
        rows = []
        for _ in range(draw(st.integers(1, 8))):
            aggregate = draw(PLACES)
            seconds[aggregate] = seconds.get(aggregate, 0) + draw(st.sampled_from([0, 0, 1, 7]))
            rows.append((aggregate, seconds[aggregate], draw(EVENTS)))
        made.append(rows)
    first = [(name, 0, el.MarketData("A", 1.0, 1.0)) for name in MARKETS]
    return [[(OWN, 0, el.PortfolioChange("A", 1.0, 2.0)), (OTHER, 0, Unheard())], first, *made]


def built(made, seal=1):
    world = World(el.open(":memory:", clock=clock()))
    for number, rows in enumerate(made):
        world.commit(rows)
        if number == seal:
            world.lab.seal()
    return world


def named(mark_with):
    patterns = [mark_with] if isinstance(mark_with, str) else mark_with
    return {name for name in (OWN, OTHER, *MARKETS) if any(fnmatch.fnmatchcase(name, one) for one in patterns)}


def moments(world):
    """Any combination of bounds that the log allows."""
    return st.builds(
        el.AsOf,
        version=st.none() | st.integers(0, len(world.of(OWN))),
        time=st.none() | st.integers(-1, 40).map(lambda seconds: T0 + seconds * SECOND),
        position=st.none() | st.integers(0, len(world.entries) - 1),
        known_at=st.none() | st.integers(-1, 9).map(lambda seconds: T0 + (3_600 + seconds) * SECOND),
    )


def plain(world, reducer, mark_with, moment):
    """What the naive twin says, as bits, with the envelope of the last own event."""
    others = named(mark_with) - {OWN}
    state, version = naive_marks.marked(TWINS[reducer.name], world.entries, OWN, others, moment)
    last = world.of(OWN)[version - 1] if version else None
    return bits(
        {
            "version": version,
            "position": None if last is None else last.position,
            "timestamp": None if last is None else last.timestamp,
            **state.record(),
            **state.properties(),
            **state.tables(),
        }
    )


def rows_of(frame):
    rows = frame.with_columns(pl.col("timestamp").to_physical()).rows(named=True)
    return [bits({name: value for name, value in row.items() if name != "at"}) for row in rows]


@settings(max_examples=60)
@given(worlds(), MARKS, st.data(), st.sampled_from([el.Portfolio, Desk]), st.booleans(), st.integers(0, 3))
def test_a_marked_state_is_the_naive_fold_of_the_merged_events(made, mark_with, data, reducer, interpret, seal):
    world = built(made, seal)
    for moment in data.draw(st.lists(moments(world), min_size=1, max_size=4), label="moments"):
        state = world.lab.state(reducer, OWN, moment, mark_with=mark_with, interpret=interpret)
        assert bits(state.to_dict()) == plain(world, reducer, mark_with, moment)


@settings(max_examples=40)
@given(worlds(), MARKS, st.data(), st.sampled_from([el.Portfolio, Desk]), st.booleans(), st.booleans())
def test_every_row_of_a_marked_history_is_the_state_at_its_moment(made, mark_with, data, reducer, interpret, tables):
    world = built(made)
    asked = data.draw(st.lists(moments(world), max_size=6), label="moments")
    asked = [*asked, *asked[:2]]
    found = world.lab.history(reducer, OWN, asked, mark_with=mark_with, tables=tables, interpret=interpret)
    assert found.height == len(asked)
    for row, moment in zip(rows_of(found), asked, strict=True):
        expected = plain(world, reducer, mark_with, moment)
        assert row == {name: expected[name] for name in row}

    own = world.lab.history(reducer, OWN, mark_with=mark_with, tables=tables, interpret=interpret)
    heard = [e.version for e in world.of(OWN) if type(e.event).__name__ in TWINS[reducer.name].heard]
    assert own["version"].to_list() == heard
    for row, version in zip(rows_of(own), heard, strict=True):
        expected = plain(world, reducer, mark_with, el.AsOf(version=version))
        assert row == {name: expected[name] for name in row}

    for every in ("1s", "5s"):
        bars = world.lab.history(reducer, OWN, every=every, mark_with=mark_with, tables=tables, interpret=interpret)
        times = bars["at"].to_physical().to_list()
        assert set(np.diff(times).tolist()) <= {SECOND if every == "1s" else 5 * SECOND}
        for row, time in zip(rows_of(bars), times, strict=True):
            expected = plain(world, reducer, mark_with, el.AsOf(time=time))
            assert row == {name: expected[name] for name in row}
        stamps = bars["at"]
        again = world.lab.history(reducer, OWN, stamps, mark_with=mark_with, tables=tables, interpret=interpret)
        assert again.equals(bars)


@settings(max_examples=30)
@given(worlds(), worlds(most=3), MARKS, st.integers(0, 30), st.sampled_from([el.Portfolio, Desk]))
def test_what_comes_later_does_not_change_what_was(made, later, mark_with, seconds, reducer):
    world = built(made)
    lab, last = world.lab, max(entry.timestamp for entry in world.entries)
    time = min(T0 + seconds * SECOND, last)
    known = world.entries[-1].recorded_at

    def looked():
        by_time = lab.state(reducer, OWN, el.AsOf(time=time), mark_with=mark_with).digest
        by_knowledge = lab.state(reducer, OWN, el.AsOf(known_at=known), mark_with=mark_with).digest
        by_version = lab.state(reducer, OWN, el.AsOf(version=1, known_at=known), mark_with=mark_with).digest
        return by_time, by_knowledge, by_version

    before, bars = looked(), lab.history(reducer, OWN, every="5s", mark_with=mark_with)
    shift = (last - T0) // SECOND + 1
    for rows in later:
        world.commit([(name, second + shift, event) for name, second, event in rows])
    assert looked() == before
    closed = bars.filter(pl.col("at").to_physical() <= last)
    assert lab.history(reducer, OWN, every="5s", mark_with=mark_with).head(len(closed)).equals(closed)
    # Recorded later, but happened in between: seen by time, and not by whoever stands at what was known.
    world.lab.append("market/late", [el.MarketData(s, 77.0, 1.0) for s in "ABC"], timestamp=T0 + SECOND)
    at_known = lab.state(reducer, OWN, el.AsOf(known_at=known), mark_with=[*named(mark_with), "market/late"])
    assert at_known.digest == before[1]


@settings(max_examples=10)
@given(worlds(most=4), MARKS, st.data())
def test_compiled_folds_stay_compiled(made, mark_with, data):
    world = built(made)
    moment = data.draw(moments(world))
    with compiled_only():
        for reducer in (el.Portfolio, Desk):
            state = world.lab.state(reducer, OWN, moment, mark_with=mark_with, interpret=False)
            assert bits(state.to_dict()) == plain(world, reducer, mark_with, moment)


@settings(max_examples=10)
@given(worlds(), st.sampled_from([el.Portfolio, Desk]))
def test_without_mark_with_it_is_as_if_nothing_were_routed(made, reducer):
    world = built(made)
    expected = plain(world, reducer, [], el.AsOf())
    assert bits(world.lab.state(reducer, OWN).to_dict()) == expected
    world.lab.snapshots.policy = el.snapshots.Every(2)
    world.lab.snapshots.build(reducer)
    assert bits(world.lab.state(reducer, OWN).to_dict()) == expected
    marked = world.lab.state(reducer, OWN, mark_with="market/*")
    assert bits(marked.to_dict()) == plain(world, reducer, "market/*", el.AsOf())


# -- a market and a few fills, by hand


@pytest.fixture(scope="module")
def lab():
    world = World(el.open(":memory:", clock=clock()))
    world.commit([("market/A", -10, el.MarketData("A", 5.0, 1.0))])
    world.commit([("portfolio/p", 0, el.PortfolioChange("A", 2.0, 10.0))])
    world.commit([("market/A", 30, el.MarketData("A", 11.0, 1.0)), ("market/A", 90, el.MarketData("A", 12.0, 1.0))])
    world.commit([("market/B", 90, el.MarketData("B", 99.0, 1.0))])
    world.commit([("portfolio/p", 90, el.PortfolioChange("A", -1.0, 13.0))])
    world.commit([("market/A", 90, el.MarketData("A", 14.0, 1.0)), ("market/A", 200, el.MarketData("A", 15.0, 1.0))])
    world.commit([("portfolio/q", 300, el.PortfolioChange("C", 1.0, 1.0))])
    return world.lab


def equity(lab, as_of=None, mark_with="market/*", portfolio="portfolio/p"):
    return lab.state(el.Portfolio, portfolio, as_of, mark_with=mark_with).equity


def at(seconds):
    return el.AsOf(time=T0 + seconds * SECOND)


def test_the_last_fill_price_stays_until_the_market_moves(lab):
    assert [equity(lab, at(seconds)) for seconds in (-1, 0, 29, 30, 89)] == [0.0, 0.0, 0.0, 2.0, 2.0]


def test_events_of_one_time_are_in_the_order_of_their_positions(lab):
    # At 90 s: a trade at 12, the fill at 13, then a trade at 14.
    assert [equity(lab, el.AsOf(position=position, time=T0 + 90 * SECOND)) for position in (3, 5, 6)] == [4.0, 6.0, 7.0]
    assert equity(lab, at(90)) == 7.0
    assert equity(lab, 2) == 6.0


def test_the_market_goes_on_after_the_last_fill(lab):
    assert equity(lab) == equity(lab, at(1_000)) == 8.0
    assert lab.state(el.Portfolio, "portfolio/p", mark_with="market/*").version == 2
    bars = lab.history(el.Portfolio, "portfolio/p", every="1m", mark_with="market/*")
    assert bars["equity"].to_list() == [0.0, 2.0, 7.0, 7.0, 8.0]
    assert bars["version"].to_list() == [1, 1, 2, 2, 2]
    assert (bars["at"].to_physical() // SECOND - T0 // SECOND).to_list() == [0, 60, 120, 180, 240]
    unmarked = lab.history(el.Portfolio, "portfolio/p", every="1m")
    assert unmarked["equity"].to_list() == [0.0, 0.0, 6.0]


def test_what_was_not_known_does_not_mark(lab):
    known = [T0 + (3_600 + commit) * SECOND for commit in range(1, 8)]
    assert [equity(lab, el.AsOf(known_at=moment)) for moment in known] == [0.0, 0.0, 4.0, 4.0, 6.0, 8.0, 8.0]
    found = lab.history(el.Portfolio, "portfolio/p", [el.AsOf(known_at=m) for m in known], mark_with="market/*")
    assert found["equity"].to_list() == [0.0, 0.0, 4.0, 4.0, 6.0, 8.0, 8.0]


def test_a_symbol_never_held_marks_nothing_and_adds_no_row(lab):
    state = lab.state(el.Portfolio, "portfolio/p", mark_with="market/B")
    assert state.digest == lab.state(el.Portfolio, "portfolio/p").digest
    assert state.positions["symbol"].to_list() == ["A"]
    assert equity(lab, portfolio="portfolio/q") == 0.0


def test_before_any_event_is_the_initial_state(lab):
    empty = lab.state(el.Portfolio, "portfolio/p", 0, mark_with="market/*")
    assert (empty.version, empty.position, empty.equity, len(empty.positions)) == (0, None, 0.0, 0)
    found = lab.history(el.Portfolio, "portfolio/p", [0, at(-5), 1], mark_with="market/*")
    assert found["version"].to_list() == [0, 0, 1]
    assert found["position"].to_list() == [None, None, 1]
    assert lab.history(el.Portfolio, "portfolio/p", [], mark_with="market/*").height == 0


def test_what_happened_later_and_was_recorded_first_waits_for_the_event_that_names_its_key():
    lab = el.open(":memory:")
    lab.append("market/A", el.MarketData("A", 5.0, 1.0), timestamp=T0 + 10 * SECOND)
    lab.append("desk", Tick("A"), timestamp=T0)
    logs = [lab.state(Desk, "desk", el.AsOf(position=p), mark_with="market/A").log for p in (0, 1)]
    assert logs == [0, 1 * 7 + 3]
    found = lab.history(Desk, "desk", [el.AsOf(position=p) for p in (1, 0)], mark_with="market/A")
    assert found["log"].to_list() == logs[::-1]


def test_an_aggregate_may_match_itself(lab):
    assert equity(lab, mark_with="*") == 8.0
    assert equity(lab, mark_with="portfolio/*") == equity(lab, mark_with="portfolio/p") == 6.0


def test_an_aggregate_none_of_whose_events_is_handled_has_bars_all_the_same():
    lab = el.open(":memory:")
    lab.append("p", Unheard(), timestamp=T0)
    lab.append("m", el.MarketData("A", 1.0, 1.0), timestamp=T0 + SECOND)
    assert lab.history(el.Portfolio, "p", mark_with="m").height == 0
    assert lab.history(el.Portfolio, "p", every="1s", mark_with="m")["version"].to_list() == [1]


def test_tables_of_a_marked_history(lab):
    bars = lab.history(el.Portfolio, "portfolio/p", every="1m", mark_with="market/*", tables=True)
    assert [rows[0]["last_price"] for rows in bars["positions"].to_list()] == [10.0, 11.0, 14.0, 14.0, 15.0]


@pytest.mark.parametrize(
    ("reducer", "mark_with", "error", "says"),
    [
        (el.Trades, "market/*", ReducerError, r"Trades has no handler of routed events.*@el.on\(el.MarketData"),
        (el.Portfolio, "markets/*", UnknownAggregate, r"matches no aggregate; got markets/\*"),
        (el.Portfolio, ["market/*", "nobody/*"], UnknownAggregate, r"matches no aggregate; got nobody/\*"),
        (
            el.Portfolio,
            "market/C",
            UnknownAggregate,
            "no event was ever appended under this aggregate id; got market/C",
        ),
        (el.Portfolio, [], UnknownAggregate, "mark_with names no aggregate"),
        (el.Portfolio, 3, InvalidEvent, "mark_with names aggregates; got 3"),
        (el.Portfolio, ["market/A", None], InvalidEvent, "mark_with names aggregates"),
    ],
)
def test_what_cannot_mark_is_refused(lab, reducer, mark_with, error, says):
    for ask in (lab.state, lab.history):
        with pytest.raises(error, match=says) as refused:
            ask(reducer, "portfolio/p", mark_with=mark_with)
        assert isinstance(refused.value, EventlabError)


def test_moments_that_are_refused_without_marks_are_refused_with_them(lab):
    for as_of in (3, el.AsOf(position=9), el.AsOf(version=9, known_at=T0)):
        with pytest.raises(AsOfError, match="past the"):
            lab.state(el.Portfolio, "portfolio/p", as_of, mark_with="market/*")
        with pytest.raises(AsOfError, match="past the"):
            lab.history(el.Portfolio, "portfolio/p", [as_of], mark_with="market/*")
    with pytest.raises(AsOfError, match="not both"):
        lab.history(el.Portfolio, "portfolio/p", at=[1], every="1m", mark_with="market/*")
    with pytest.raises(UnknownAggregate, match="nobody"):
        lab.state(el.Portfolio, "nobody", mark_with="market/*")


@pytest.mark.parametrize("interpret", [True, False])
def test_a_failure_names_the_routed_event(lab, interpret):
    @el.reducer
    class Fragile:
        count: int = 0

        def on_portfolio_change(state, event):
            state.count += 1

        @el.on(el.MarketData, routed="symbol")
        def traded(state, event):
            state.count += int(1.0 / (event.price - 12.0))

    with pytest.raises(FoldError, match=r"failed on market_data at position 3, routed to 'portfolio/p': ZeroDivision"):
        lab.state(Fragile, "portfolio/p", mark_with="market/*", interpret=interpret)
    assert lab.state(Fragile, "portfolio/p", at(89), mark_with="market/*", interpret=interpret).count == -2 + 1 + 1


def test_a_portfolio_of_real_trades_is_marked_as_an_asof_join_says(market_data_dir):
    lab = el.open(":memory:")
    path = market_data_dir / "binance" / "spot_btcusdt_trades.csv.gz"
    lab.ingest(el.feeds.binance_trades(path, symbol="BTCUSDT"), progress=False)
    trades = lab.events(el.MarketData)
    symbol, times = trades["symbol"][0], trades["timestamp"].to_physical()
    rng = np.random.default_rng(5)
    when = np.sort(rng.choice(times.to_numpy(), 40)) + 1
    quantity = np.round(rng.normal(size=40), 3)
    price = np.round(trades["price"].mean() + rng.normal(size=40), 2)
    fills = pl.DataFrame({"symbol": symbol, "quantity": quantity, "price": price, "fee": 0.1, "timestamp": when})
    lab.append_frame(el.PortfolioChange, fills, aggregate_id="portfolio/alpha")

    bars = lab.history(el.Portfolio, "portfolio/alpha", every="1m", mark_with="market/*")
    assert bars["at"][-1] >= trades["timestamp"][-1]
    prices = pl.concat(
        [trades.select("timestamp", "price"), lab.events(el.PortfolioChange).select("timestamp", "price")]
    )
    holdings = lab.events(el.PortfolioChange).select(
        "timestamp",
        held=pl.col("quantity").cum_sum(),
        cash=(-pl.col("quantity") * pl.col("price") - pl.col("fee")).cum_sum(),
    )
    joined = (
        bars.select("at")
        .join_asof(prices.sort("timestamp", maintain_order=True), left_on="at", right_on="timestamp")
        .join_asof(holdings, left_on="at", right_on="timestamp")
        .select(pl.col("cash") + pl.col("held") * pl.col("price"))
        .to_series()
    )
    assert len(bars) > 10
    np.testing.assert_allclose(bars["equity"], joined, rtol=1e-12, atol=1e-6)
    last = lab.state(el.Portfolio, "portfolio/alpha", mark_with=str(trades["aggregate_id"][0]))
    assert last.positions["last_price"][0] == trades["price"][-1]


def test_a_version_recorded_after_a_position_bounds_by_its_event_time(tmp_path):
    with el.open(tmp_path) as lab:
        lab.append(OWN, el.PortfolioChange("A", 1.0, 2.0), timestamp=T0)
        lab.append("market/A", el.MarketData("A", 3.0, 1.0), timestamp=T0 + SECOND)
        lab.append(OWN, el.Funding("A", 0.01), timestamp=T0)
        moment = el.AsOf(version=2, position=1)
        state = lab.state(el.Portfolio, OWN, moment, mark_with="market/*")
        rows = lab.history(el.Portfolio, OWN, [moment, el.AsOf(position=1)], mark_with="market/*")
    assert (state.version, state.equity) == (1, 0.0)
    assert rows["equity"].to_list() == [0.0, 1.0]
