"""Law 1: whatever a policy makes, lets go, or somebody breaks, states are those of the events."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import SnapshotError, SnapshotSkipped
from eventlab.snapshots.policy.cost_based import LEAST_GAP
from eventlab.snapshots.policy.history import Past
from tests.examples import examples
from tests.fold.kitchen import Merged, Tables
from tests.fold.strategies import BOOK_CHANGES, PORTFOLIO_CHANGES, SIGNALS, TICKS, TOCKS
from tests.reducers.test_one_answer import FUNDINGS, QUOTES
from tests.reducers.test_one_answer import TRADES as SOME_TRADES
from tests.snapshots.policy.test_cost_model import a_model
from tests.timetravel.worlds import NAMES, SECOND, T0, clock

S = el.snapshots
REDUCERS = (
    (el.Trades, SOME_TRADES), (el.OrderBook, BOOK_CHANGES), (el.Signals, SIGNALS), (el.Portfolio, PORTFOLIO_CHANGES),
    (el.TimeBars(width_ns=3 * SECOND), SOME_TRADES), (el.TickBars(size=3), SOME_TRADES),
    (el.VolumeBars(size=7.0), SOME_TRADES), (el.DollarBars(size=7.0), SOME_TRADES), (el.Vwap, SOME_TRADES),
    (el.Twap, SOME_TRADES), (el.Ewma(alpha=0.3), SOME_TRADES), (el.EwmaTime(half_life_ns=2 * SECOND), SOME_TRADES),
    (el.Moments, SOME_TRADES), (el.RollingMoments(window=4), SOME_TRADES), (el.Correlation, SOME_TRADES),
    (el.RollingCorrelation(window=3), SOME_TRADES), (el.RealizedVolatility, SOME_TRADES),
    (el.BookDepth(levels=2), BOOK_CHANGES), (el.OrderFlowImbalance, QUOTES), (el.Risk, PORTFOLIO_CHANGES),
    (el.FundingRate, FUNDINGS), (Tables, st.one_of(TICKS, TOCKS)), (Merged, st.one_of(TICKS, TOCKS)),
)  # fmt: skip

PLAIN = st.one_of(
    st.builds(S.Every, st.integers(1, 9)),
    st.builds(S.EveryBytes, st.integers(1, 400)),
    st.sampled_from(["1s", "3s", "1m"]).map(S.EveryTime),
    st.builds(S.Exponential, st.integers(1, 4)),
    st.builds(S.MaxGap, st.integers(1, 9)),
    st.just(S.OnRead()),
    st.sampled_from(["1ns", "1h"]).map(S.SlowerThan),
    st.just(S.CostOptimal()),
)


def composed(inner):
    either = st.tuples(inner, inner).map(lambda two: two[0] | two[1])
    both = st.tuples(inner, inner).map(lambda two: two[0] & two[1])
    kept = st.tuples(inner, st.integers(1, 4)).map(lambda two: two[0] & S.Keep(last=two[1]))
    return st.one_of(either, both, kept)


POLICIES = st.recursive(PLAIN, composed, max_leaves=4)


def break_something(lab, data):
    """Flip, cut or remove what lies in the files of snapshots."""
    for content in lab.snapshots._files._files.values():
        what = data.draw(st.sampled_from(["nothing", "flip", "cut", "zero"]))
        if not content or what == "nothing":
            continue
        at = data.draw(st.integers(0, len(content) - 1))
        if what == "flip":
            content[at] ^= data.draw(st.integers(1, 255))
        elif what == "cut":
            del content[at:]
        else:
            content[at : at + 200] = bytes(len(content[at : at + 200]))
    lab.snapshots._shelves.clear()  # as another process finds them


@pytest.mark.parametrize(("reducer", "events"), REDUCERS, ids=lambda one: getattr(one, "name", ""))
def test_states_are_those_of_the_events_with_any_policy(reducer, events):
    @examples(8)
    @given(st.lists(events, min_size=1, max_size=30), st.lists(POLICIES, min_size=1, max_size=3), st.data())
    def same(drawn, policies, data):
        lab, plain = el.open(":memory:", clock=clock()), el.open(":memory:", clock=clock())
        second = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for policy in policies:
                lab.snapshots.policy = policy
                for event in drawn:
                    second += data.draw(st.sampled_from([0, 0, 1, 2, 70]))
                    for one in (lab, plain):
                        one.append(NAMES[0], event, timestamp=T0 + second * SECOND)
                head = plain.store.heads([NAMES[0]])[0].version
                action = data.draw(st.sampled_from(["build", "take", "drop", "break", "seal"]))
                if action == "build":
                    lab.snapshots.build(reducer)
                elif action == "take":
                    lab.snapshot(reducer, NAMES[0], data.draw(st.integers(1, head)))
                elif action == "drop":
                    lab.snapshots.drop()
                elif action == "break":
                    lab.snapshots.build(reducer)
                    break_something(lab, data)
                else:
                    lab.seal()
                times = (T0 + s * SECOND for s in data.draw(st.lists(st.integers(-1, second + 1), max_size=2)))
                moments = [None, *data.draw(st.lists(st.integers(0, head), min_size=1, max_size=4))]
                for moment in [*moments, *(el.AsOf(time=time) for time in times)]:
                    found, expected = (one.state(reducer, NAMES[0], moment) for one in (lab, plain))
                    assert (found.version, found.digest) == (expected.version, expected.digest)

    same()


@examples(50)
@given(POLICIES, st.integers(1, 60), st.integers(0, 60))
def test_policies_choose_ascending_versions_within_the_past(policy, head, after):
    after = min(after, head)
    lab = el.open(":memory:")
    events = [el.MarketData("A", 1.0, 1.0)] * head
    lab.append("a", events, timestamp=[T0 + at * SECOND for at in range(head)])
    past = Past(head, after, lab.store, "a", head)
    found = policy.versions(past)
    assert (np.diff(found) > 0).all()
    assert ((found > after) & (found <= head)).all()
    kept = policy.retain(past, np.arange(1, head + 1))
    assert np.isin(kept, np.arange(1, head + 1)).all()


# Policies by which whether a version has a snapshot depends on nothing but the events around it.
STEADY = st.recursive(
    st.builds(S.Every, st.integers(1, 9)) | st.sampled_from(["1s", "3s", "1m"]).map(S.EveryTime),
    lambda inner: st.tuples(inner, inner).flatmap(lambda two: st.sampled_from([two[0] | two[1], two[0] & two[1]])),
    max_leaves=4,
)


@examples(25)
@given(STEADY, st.integers(2, 60))
def test_what_is_appended_one_by_one_gets_the_snapshots_of_a_build(policy, head):
    grown, built = el.open(":memory:"), el.open(":memory:")
    grown.snapshots.policy = built.snapshots.policy = policy
    for at in range(head):
        for lab in (grown, built):
            lab.append("a", el.MarketData("A", 1.0, 1.0), timestamp=T0 + at * SECOND)
        if at == 0:
            grown.snapshot(el.Trades, "a")  # an aggregate is followed once it has a snapshot
    built.snapshots.build(el.Trades)
    expected = {1, *built.snapshots.table()["version"].to_list()}
    assert grown.snapshots.table()["version"].to_list() == sorted(expected)


def test_snapshots_follow_appends():
    lab = el.open(":memory:")
    lab.snapshots.policy = S.Every(10)
    trade = el.MarketData("A", 1.0, 1.0)
    lab.append("a", [trade] * 25)
    lab.append("b", [trade] * 5)
    assert lab.snapshots.build(el.Trades).snapshots == 2
    lab.append("a", trade)
    assert lab.snapshots.table()["version"].to_list() == [10, 20]
    lab.append("a", [trade] * 14)
    lab.append("b", [trade] * 50)  # has no snapshot of the reducer yet
    assert lab.snapshots.table()["version"].to_list() == [10, 20, 30, 40]
    assert lab.snapshots.verify().equal == 4


def test_only_the_last_are_kept():
    lab = el.open(":memory:")
    lab.snapshots.policy = S.Every(10) & S.Keep(last=3)
    lab.append("a", [el.MarketData("A", 1.0, 1.0)] * 45)
    assert lab.snapshots.build(el.Trades).snapshots == 3
    assert lab.snapshots.table()["version"].to_list() == [20, 30, 40]
    assert lab.snapshots.build(el.Trades).evicted == 0
    lab.append("a", [el.MarketData("A", 1.0, 1.0)] * 10)
    assert lab.snapshots.table()["version"].to_list() == [30, 40, 50]
    lab.snapshots._shelves.clear()
    assert lab.snapshots.table()["version"].to_list() == [30, 40, 50]
    assert lab.snapshots.verify().equal == 3
    lab.snapshots.policy = S.Every(10) & S.Keep(last=1)
    assert lab.snapshots.build(el.Trades).evicted == 2


def test_reads_leave_snapshots_behind():
    lab = el.open(":memory:")
    lab.append("a", [el.MarketData("A", 1.0, 1.0)] * 45)
    lab.state(el.Trades, "a", 30)
    assert lab.snapshots.table().height == 0
    lab.snapshots.policy = S.OnRead() & S.MaxGap(10)
    for version in (30, 35, 45, 3, 30):
        lab.state(el.Trades, "a", version)
    assert lab.snapshots.table()["version"].to_list() == [30, 45]
    lab.snapshots.policy = S.SlowerThan("1h")
    lab.state(el.Trades, "a", 20)
    assert lab.snapshots.table()["version"].to_list() == [30, 45]
    lab.snapshots.policy = S.SlowerThan("1ns")
    lab.state(el.Trades, "a", 20)
    assert lab.snapshots.table()["version"].to_list() == [20, 30, 45]
    assert lab.snapshots.verify().equal == 3


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: S.EveryBytes(0), "positive"), (lambda: S.EveryTime("0s"), "positive|above"),
        (lambda: S.EveryTime("soon"), "duration|soon"), (lambda: S.SlowerThan("-1ms"), "SlowerThan"),
        (lambda: S.Every(2**63), "below 2"), (lambda: S.EveryBytes(10**30), "below 2"),
        (lambda: S.MaxGap(10**30), "below 2"), (lambda: S.EveryTime("1000000d"), "292 years"),
        (lambda: S.Exponential(-1), "positive"), (lambda: S.Keep(0), "positive"), (lambda: S.MaxGap(True), "positive"),
        (lambda: S.Every(2) | 3, "not a snapshot policy"), (lambda: S.Every(2) & None, "not a snapshot policy"),
        (lambda: S.CostOptimal(storage_budget=0), "above zero"),
        (lambda: S.CostOptimal(latency_budget="0ms"), "latency_budget"),
        (lambda: S.CostOptimal(workload="uniform"), "not a workload"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(make, match):
    with pytest.raises(el.EventlabError, match=match):
        make()


@pytest.mark.parametrize(
    "policy",
    [S.Keep(3), S.Keep(3) | S.Keep(2), (S.Keep(3) & S.Keep(2)) | S.Keep(1), (S.Keep(1) | S.Keep(2)) & S.Every(5),
     S.Policy()],
    ids=lambda one: type(one).__name__,
)  # fmt: skip
def test_a_policy_that_never_fires_is_refused(policy):
    lab = el.open(":memory:")
    with pytest.raises(SnapshotError, match="never makes a snapshot"):
        lab.snapshots.policy = policy


TRADE = el.MarketData("A", 1.0, 1.0)


@pytest.mark.parametrize(
    ("policy", "there"),
    [(S.Every(1), 45), (S.Every(2**62), 0), (S.Every(7) & S.Every(40), 0), (S.EveryBytes(2**62), 0),
     (S.MaxGap(2**62) | S.Every(20), 2), (S.EveryTime("1h"), 0), (S.OnRead() & S.Every(1), 45)],
    ids=str,
)  # fmt: skip
def test_policies_that_always_or_never_fire_here_give_the_same_states(policy, there):
    lab, plain = el.open(":memory:"), el.open(":memory:")
    for one in (lab, plain):
        one.append("a", [TRADE] * 45, timestamp=T0)
    lab.snapshots.policy = policy
    assert lab.snapshots.build(el.Trades).snapshots in {there, 0}
    for version in range(1, 46):
        assert lab.state(el.Trades, "a", version).digest == plain.state(el.Trades, "a", version).digest
    assert lab.snapshots.table().height == there
    assert lab.snapshots.verify().equal == there


class Own(S.Policy):
    """One that a user wrote."""

    def __init__(self, answer):
        self.answer = answer

    def __repr__(self):
        return "Own()"

    def versions(self, past):
        return self.answer(past)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda past: [10, past.head + 1], "Own.. chose what is no version; got .10, .*expected integers from"),
        (lambda past: [past.after, past.after + 1], "chose what is no version"),
        (lambda past: np.array([-5, past.head]), "chose what is no version"),
        (lambda past: [past.head - 0.5], "chose what is no version"),
        (lambda past: None, "chose what is no version"),
        (lambda past: "soon", "chose what is no version"),
        (lambda past: [None, 5], "failed with TypeError"),
        (lambda past: 1 / 0, "Own.. failed with ZeroDivisionError: division by zero"),
    ],
)
def test_a_policy_of_ones_own_that_answers_wrongly_is_named_and_costs_no_append(answer, words):
    lab = el.open(":memory:")
    lab.append("a", [TRADE] * 20)
    lab.snapshots.policy = Own(answer)
    with pytest.raises(SnapshotError, match=words):
        lab.snapshots.build(el.Trades)
    assert lab.snapshots.table().height == 0
    lab.snapshot(el.Trades, "a", 10)
    with pytest.warns(SnapshotSkipped, match=words):
        lab.append("a", [TRADE] * 20)
    assert lab.state(el.Trades, "a").count == 40
    assert lab.snapshots.verify().equal == 1


def test_a_policy_of_ones_own_that_fails_as_states_are_read_costs_no_answer():
    class Failing(S.OnRead):
        def after_read(self, read):
            raise KeyError(read.version)

    lab = el.open(":memory:")
    lab.append("a", [TRADE] * 20)
    lab.snapshots.policy = Failing()
    with pytest.warns(SnapshotSkipped, match="failed with KeyError: 15"):
        assert lab.state(el.Trades, "a", 15).count == 15


def test_a_storage_budget_below_one_snapshot_is_refused():
    lab = el.open(":memory:")
    lab.ingest(el.feeds.simulate(symbols=("A",), trades=5_000), progress=False)
    lab.snapshots.policy = S.CostOptimal(storage_budget=10)
    with pytest.raises(SnapshotError, match="below one snapshot"):
        lab.snapshots.build(el.Trades, "market/A")


def test_a_planned_placement_follows_the_reads_and_keeps_to_its_gap():
    lab = el.open(":memory:")
    lab.ingest(el.feeds.simulate(symbols=("A",), trades=60_000), progress=False)
    lab.snapshots.policy = S.CostOptimal(latency_budget="1s", storage_budget=4_000, workload=el.workloads.Zipf(1.5))
    lab.snapshots.build(el.Trades, "market/A")
    table = lab.snapshots.table()
    gaps = np.diff([0, *table["version"].to_list(), 60_000])
    assert table["bytes"].sum() <= 4_000
    assert gaps[0] > gaps[-2]
    assert lab.snapshots.verify().equal == table.height


class Planned(Past):
    """A past of which only a model is known."""

    def __init__(self, head, model):
        super().__init__(head, _measure=lambda _: model)

    @property
    def starts(self):
        return np.array([1])


@examples(30)
@example(head=2049, room=258, event=1e-09, fixed=0.0078125, sizes=[259.0, 258.0])  # room at the head alone
@given(
    st.integers(LEAST_GAP, 300_000), st.integers(100, 100_000), st.floats(1e-9, 1e-5), st.floats(1e-6, 1e-2),
    st.lists(st.floats(10.0, 50_000.0), min_size=1, max_size=5),
)  # fmt: skip
def test_a_planned_placement_keeps_to_its_gap_however_little_room_there_is(head, room, event, fixed, sizes):
    at = np.linspace(head / len(sizes), head, len(sizes)).astype(np.int64)
    model = a_model(
        fixed=fixed, event=event, byte=0.0, given=0.0, joining=0.0, opening=0.0, group=np.zeros(3), at=at,
        size=np.array(sizes), length=1e6,
    )  # fmt: skip
    policy = S.CostOptimal(latency_budget="2ms", storage_budget=room, workload=el.workloads.Zipf())
    past = Planned(head, model)
    if room < sizes[-1]:
        with pytest.raises(SnapshotError, match="below one snapshot"):
            policy.versions(past)
        return
    versions = policy.versions(past)
    longest = max(model.gap(0.002), model.balanced_gap if model.gap(0.002) < LEAST_GAP else 0, LEAST_GAP)
    assert np.diff([0, *versions, head + 1]).max() <= longest + 1
