"""Policies are compared on the same reads, within equal bytes, against the optimum; and what was measured is kept."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import polars as pl
import pytest

import eventlab as el
from eventlab.errors import PlotError, ReadOnlyStore, ReducerError, SnapshotError, SnapshotSkipped, UnknownAggregate
from eventlab.experiments import SnapshotRead, SnapshotTrial, compare, comparison, interleaved, measurement, results
from eventlab.snapshots import CostOptimal, Every, Exponential, Keep, OnRead, SlowerThan
from eventlab.snapshots.placement.workloads import Drift, HotSpots, Recorded, Uniform, Zipf

MARKET = "market/BTCUSDT"
POLICIES = [Every(100), Every(400)]
UNIFORM = [Uniform()]


@pytest.fixture
def lab(tmp_path):
    with el.open(tmp_path / "lab") as lab:
        lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=1_000, seed=1), progress=False)
        yield lab


@pytest.fixture(scope="module")
def small():
    with el.open(":memory:") as lab:
        lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=1_000, seed=1), progress=False)
        yield lab


def measure(lab, policies=POLICIES, workloads=UNIFORM, **options):
    options = {"reads": 12, "progress": False, **options}
    return compare(lab, options.pop("reducer", el.Trades), policies, workloads, **options)


def test_a_row_for_every_policy_workload_budget_and_seed(lab):
    found = measure(lab, workloads=[Uniform(), Zipf(1.1)], budgets=(None, 1_000), seeds=(0, 1))
    frame = found.frame
    assert frame.schema == comparison.FRAME_SCHEMA
    assert len(frame) == 16
    assert frame.select("policy", "workload", "budget", "seed").is_unique().all()
    assert frame["policy"].to_list() == ["Every(n=100)"] * 8 + ["Every(n=400)"] * 8
    assert set(frame["workload"]) == {"Uniform()", "Zipf(exponent=1.1)"}
    assert (frame["reads"] == 6).all()
    order = ["latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "latency_max_ms"]
    assert (frame["latency_p50_ms"] > 0.0).all()
    for low, high in itertools.pairwise(order):
        assert (frame[low] <= frame[high]).all()
    assert (frame["optimum_ratio"] >= 1.0).all()
    free = frame.filter(pl.col("budget").is_null())
    assert set(free.select("policy", "snapshots", "evictions").rows()) == {
        ("Every(n=100)", 10, 0),
        ("Every(n=400)", 2, 0),
    }
    assert (found.reducer, found.aggregate_id, found.version) == ("Trades", MARKET, 1_000)


def test_a_mapping_gives_names(small):
    frame = measure(small, {"dense": Every(100), "sparse": Every(500)}, {"all": Uniform()}).frame
    assert frame["policy"].to_list() == ["dense", "sparse"]
    assert frame["workload"].to_list() == ["all", "all"]


def test_the_longest_aggregate_the_reducer_handles_is_taken(small):
    with el.open(":memory:") as lab:
        lab.append("market/A", [el.MarketData("A", 1.0, 1.0)] * 3)
        lab.append("market/B", [el.MarketData("B", 1.0, 1.0)] * 5)
        lab.append("signals/x", [el.TradingSignal("A", "buy", 1.0, "x")] * 9)
        assert measure(lab, reads=2).aggregate_id == "market/B"
        assert measure(lab, reads=2, aggregate_id="market/A").aggregate_id == "market/A"
        with pytest.raises(UnknownAggregate, match="OrderBook"):
            measure(lab, reducer=el.OrderBook)


def test_the_lab_and_its_own_snapshots_stay_as_they_were(lab):
    lab.snapshots.policy = Every(300)
    lab.snapshots.build(el.Trades)
    table, stop = lab.snapshots.table(), lab.store.stop_position
    measure(lab, [Every(50), OnRead()], budgets=(None, 2_000))
    assert lab.snapshots.table().equals(table)
    assert lab.snapshots.policy == Every(300)
    assert lab.store.stop_position == stop


def noted(monkeypatch):
    """Versions and collections of the reads measured, and of those that train."""
    measured, trained = [], []
    read, offer = measurement.Subject.read, measurement.Subject.offer

    def noting_read(self, version, snapshots):
        if snapshots is not None:
            measured.append((version, id(snapshots)))
        return read(self, version, snapshots)

    def noting_offer(self, version, snapshots, policy):
        trained.append((version, repr(policy)))
        return offer(self, version, snapshots, policy)

    monkeypatch.setattr(measurement.Subject, "read", noting_read)
    monkeypatch.setattr(measurement.Subject, "offer", noting_offer)
    return measured, trained


def test_reads_are_split_by_time_and_the_same_for_all(small, monkeypatch):
    measured, trained = noted(monkeypatch)
    drift = Drift(0.05)
    measure(small, [Every(100), OnRead(), Every(500)], [drift], reads=20, seeds=(3,))
    drawn = drift.draw(1_000, 20, np.random.default_rng(3)).tolist()
    assert trained == [(version, "OnRead()") for version in drawn[:10]]
    turns = [measured[at : at + 3] for at in range(0, len(measured), 3)]
    assert [turn[0][0] for turn in turns] == drawn[10:]
    for turn in turns:
        assert len({version for version, _ in turn}) == 1
        assert len({snapshots for _, snapshots in turn}) == 3
    assert len({tuple(snapshots for _, snapshots in turn) for turn in turns}) > 1, "the order changes"


def test_policies_that_look_at_reads_keep_what_trains_them_and_nothing_else(lab):
    hot = HotSpots(count=1, width=0.01)
    found = measure(lab, {"read": OnRead(), "never": SlowerThan("1h"), "both": OnRead() | Every(500)}, [hot], reads=40)
    drawn = hot.draw(1_000, 40, np.random.default_rng(0))
    kept = {row["policy"]: row for row in found.frame.iter_rows(named=True)}
    assert kept["read"]["snapshots"] == len(np.unique(drawn[:20]))
    assert kept["read"]["training_seconds"] > 0.0
    assert kept["never"]["snapshots"] == kept["never"]["bytes"] == 0
    assert kept["both"]["snapshots"] == len(np.union1d(drawn[:20], [500, 1_000]))
    before = np.unique(drawn[:20])
    bases = np.array([before[before <= v].max(initial=0) for v in drawn[20:]])
    assert kept["read"]["events_replayed"] == pytest.approx((drawn[20:] - bases).mean())
    assert kept["never"]["events_replayed"] == pytest.approx(drawn[20:].mean())


def test_policies_that_look_at_reads_are_trained_in_a_lab_opened_to_be_read(tmp_path):
    with el.open(tmp_path / "lab") as lab:
        lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=300), progress=False)
    with el.open(tmp_path / "lab", read_only=True) as lab:
        assert measure(lab, [OnRead()], reads=4).frame["snapshots"].item() > 0
        with pytest.raises(ReadOnlyStore, match="into"):
            measure(lab, name="x")
    assert not (tmp_path / "lab" / "snapshots").exists()


def test_a_state_that_depends_on_its_snapshots_is_an_error(small, monkeypatch):
    read = measurement.Subject.read
    monkeypatch.setattr(
        measurement.Subject,
        "read",
        lambda self, version, snapshots: (read(self, version, snapshots)[0], str(id(snapshots))),
    )
    with pytest.raises(SnapshotError, match="depends on the snapshots"):
        measure(small)


def test_a_budget_keeps_the_newest_snapshots_that_fit(lab):
    free = measure(lab, [Every(50)]).frame.row(0, named=True)
    budget = free["bytes"] // 2
    held = measure(lab, [Every(50)], budgets=(budget,)).frame.row(0, named=True)
    assert held["snapshots"] + held["evictions"] == free["snapshots"] == 20
    assert 0.7 * budget < held["bytes"] <= budget
    drawn = Uniform().draw(1_000, 12, np.random.default_rng(0))[6:]
    kept = np.arange(1, 21)[-held["snapshots"] :] * 50
    bases = np.array([kept[kept <= version].max(initial=0) for version in drawn])
    assert held["events_replayed"] == pytest.approx((drawn - bases).mean())


def test_a_budget_that_is_not_needed_changes_nothing(small):
    frame = measure(small, [Every(100)], budgets=(None, 10**9)).frame
    assert frame["snapshots"].to_list() == [10, 10]
    assert frame["evictions"].to_list() == [0, 0]


def test_a_budget_below_one_snapshot_is_reported_and_measured_without(small):
    message = r"the budget is below one snapshot of Every\(n=100\); got 10 bytes; expected at least \d"
    with pytest.warns(SnapshotSkipped, match=message):
        frame = measure(small, [Every(100)], budgets=(10, None)).frame
    assert frame.select("budget", "snapshots", "bytes", "feasible").rows() == [
        (10, 0, 0, False), (None, 10, frame["bytes"][1], True),
    ]  # fmt: skip
    frame = measure(small, [Every(5_000)], budgets=(10,)).frame
    assert frame.select("snapshots", "feasible").rows() == [(0, True)]


@pytest.mark.parametrize("workload", [None, el.workloads.Uniform()], ids=["even", "planned"])
def test_a_policy_that_cannot_meet_its_own_budget_does_not_end_a_comparison(workload):
    lab = el.open(":memory:")
    lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=3_000), progress=False)
    tight = CostOptimal(storage_budget=10, workload=workload)
    compared = {"tight": tight, "joined": Every(500) | tight, "even": Every(500)}
    with pytest.warns(SnapshotSkipped) as message:
        found = measure(lab, compared, name="budgets")
    words = [str(one.message) for one in message if one.category is SnapshotSkipped]
    assert [one.split(" is measured")[0] for one in words] == ["tight", "joined"]
    assert all("storage_budget=10" in one and "got 10 bytes; expected at least" in one for one in words)
    assert found.frame.select("snapshots", "feasible").rows() == [(0, False), (0, False), (6, True)]
    assert "no snapshot fits into the budget of tight, joined" in found.verdict
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what was measured is not measured again
        assert measure(lab, compared, name="budgets").frame.equals(found.frame)
    least = int(words[0].split("at least ")[1].split(".")[0].replace(",", ""))
    enough = measure(lab, [CostOptimal(storage_budget=least, workload=workload)]).frame
    assert enough.select("snapshots", "feasible").rows() == [(1, True)]


def test_intervals_hold_each_policy_against_the_baseline(small):
    found = measure(small, [Every(100), Every(400), OnRead()], seeds=(0, 1), budgets=(None, 5_000))
    frame = found.intervals(Every(400))
    assert frame.schema == comparison.INTERVALS_SCHEMA
    assert frame.select("policy", "budget").rows() == [
        ("Every(n=100)", None), ("Every(n=100)", 5_000), ("OnRead()", None), ("OnRead()", 5_000),
    ]  # fmt: skip
    assert (frame["reads"] == 12).all()
    for kind in ("mean", "p99"):
        assert (frame[f"{kind}_low"] <= frame[f"{kind}_high"]).all()
    means = found.frame.filter(pl.col("budget").is_null()).group_by("policy").agg(pl.col("latency_mean_ms").mean())
    mean = dict(means.rows())
    assert frame["mean_ratio"][0] == pytest.approx(mean["Every(n=100)"] / mean["Every(n=400)"])
    assert found.intervals().equals(found.intervals("Every(n=100)"))
    with pytest.raises(SnapshotError, match="no such policy was compared"):
        found.intervals(Every(7))
    with pytest.raises(SnapshotError, match="seed"):
        found.intervals(seed=-1)


def test_one_policy_has_no_intervals(small):
    frame = measure(small, [Every(100)]).intervals()
    assert frame.is_empty()
    assert frame.schema == comparison.INTERVALS_SCHEMA


class Interrupted(Exception):
    pass


def counting(monkeypatch, most=10**9):
    """How often a group is measured; it is interrupted after so many."""
    seen = []
    real = interleaved._measure

    def measuring_one(subject, group, policies, *costs_and_bar):
        if len(seen) == most:
            raise Interrupted
        seen.append((group.workload, group.budget, group.seed, list(policies)))
        return real(subject, group, policies, *costs_and_bar)

    monkeypatch.setattr(interleaved, "_measure", measuring_one)
    return seen


def test_a_rerun_measures_nothing_again(lab, monkeypatch):
    options = {"workloads": [Uniform(), Zipf()], "seeds": (0, 1), "name": "first"}
    found = measure(lab, **options)
    stop = lab.store.stop_position
    assert lab.store.heads(["experiment/first"])[0].version == 8 + 8 * 6
    assert len(lab.events(SnapshotTrial)) == 8
    assert len(lab.events(SnapshotRead)) == 48
    seen = counting(monkeypatch)
    again = measure(lab, **options)
    assert not seen
    assert lab.store.stop_position == stop
    assert again.frame.equals(found.frame)
    assert again.intervals().equals(found.intervals())
    assert results(lab, "first").frame.sort(pl.all()).equals(found.frame.sort(pl.all()))
    lab.verify()


def test_an_interrupted_run_keeps_what_it_measured_and_goes_on(lab, monkeypatch):
    options = {"workloads": [Uniform(), Zipf()], "seeds": (0, 1), "name": "long"}
    with monkeypatch.context() as patch:
        seen = counting(patch, most=3)
        with pytest.raises(Interrupted):
            measure(lab, **options)
    kept = results(lab, "long").frame
    assert len(kept) == 6
    with monkeypatch.context() as patch:
        rest = counting(patch)
        found = measure(lab, **options)
    assert len(seen) == 3
    assert [one[:3] for one in rest] == [("Zipf(exponent=1.0)", None, 1)]
    assert len(found.frame) == 8
    assert len(found.frame.join(kept, on=kept.columns, how="semi", nulls_equal=True)) == 6


def test_only_what_is_new_is_measured(lab, monkeypatch):
    measure(lab, name="grows")
    seen = counting(monkeypatch)
    found = measure(lab, [*POLICIES, Every(50)], name="grows")
    assert seen == [("Uniform()", None, 0, ["Every(n=50)"])]
    assert found.frame["policy"].to_list() == ["Every(n=100)", "Every(n=400)", "Every(n=50)"]
    assert len(found.intervals("Every(n=50)")) == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"reads": 14}, {"seeds": (5,)}, {"budgets": (5_000,)}, {"workloads": [Zipf()]}, {"name": "other"},
        {"reducer": el.Vwap}, {"policies": {"a": Every(100), "b": Every(400)}},
    ],
    ids=str,
)  # fmt: skip
def test_other_parameters_are_other_trials(small, monkeypatch, changed):
    with el.open(":memory:") as into:
        measure(small, name="same", into=into)
        seen = counting(monkeypatch)
        measure(small, **{"name": "same", "into": into, **changed})
        assert len(seen) == 1


def test_a_longer_history_is_another_trial_and_results_are_of_the_last(lab, monkeypatch):
    measure(lab, name="grown")
    lab.append(MARKET, el.MarketData("BTCUSDT", 1.0, 1.0))
    seen = counting(monkeypatch)
    measure(lab, [Every(100)], name="grown")
    assert len(seen) == 1
    found = results(lab, "grown")
    assert found.version == 1_001
    assert len(found.frame) == 1


def test_a_name_stands_for_one_policy_and_one_workload_within_an_experiment(small):
    reads = {"mine": Recorded(np.array([5, 6]), np.array([9, 9]))}
    others = {"mine": Recorded(np.array([5, 7]), np.array([9, 9]))}
    with el.open(":memory:") as into:
        kept = measure(small, {"a": Every(100)}, reads, name="r", into=into)
        with pytest.raises(SnapshotError, match="'mine' is another workload than in the stored trials"):
            measure(small, {"b": Every(100)}, others, name="r", into=into)
        with pytest.raises(SnapshotError, match="'a' is another policy"):
            measure(small, {"a": Every(200)}, reads, name="r", into=into)
        assert results(into, "r").frame.equals(kept.frame)
        measure(small, {"a": Every(200)}, others, name="other", into=into)
        measure(small, {"b": Every(200)}, reads, name="r", into=into)
        assert results(into, "r").frame["policy"].to_list() == ["a", "b"]


def test_results_go_into_another_lab(small):
    stop = small.store.stop_position
    with el.open(":memory:") as into:
        found = measure(small, name="apart", into=into)
        assert results(into, "apart").frame.equals(found.frame)
        assert into.store.aggregate_ids() == ["experiment/apart"]
    assert small.store.stop_position == stop
    with pytest.raises(UnknownAggregate, match="no experiment of this name; got apart"):
        results(small, "apart")


def test_states_that_differ_from_those_measured_before_are_reported(lab, monkeypatch):
    measure(lab, name="proof")
    read = measurement.Subject.read
    monkeypatch.setattr(
        measurement.Subject, "read", lambda self, version, snapshots: (read(self, version, snapshots)[0], "another")
    )
    with pytest.raises(SnapshotError, match="differ from those measured before"):
        measure(lab, [*POLICIES, Every(50)], name="proof")
    assert len(lab.events(SnapshotTrial)) == 2


def test_the_verdict_says_where_nothing_adaptive_can_help(small):
    found = measure(small, workloads={"flat": Uniform(), "<b>late</b>": Zipf(1.5)})
    flat, late = found.verdict.splitlines()
    assert flat.startswith("flat: Every(n=")
    assert flat.endswith("headroom 1.00: no adaptive placement can help")
    assert "no adaptive" not in late
    assert repr(found).splitlines()[0] == "4 trials of snapshots of Trades for market/BTCUSDT at version 1,000"
    html = found._repr_html_()
    assert "&lt;b&gt;late&lt;/b&gt;" in html
    assert "<b>late</b>" not in html


def test_what_is_shown_is_bounded(small, monkeypatch):
    monkeypatch.setattr(comparison, "_SHOWN_ROWS", 2)
    monkeypatch.setattr(comparison, "_BEST_SHOWN", 1)
    found = measure(small, [Every(500)], {str(at): Uniform() for at in range(3)}, reads=2)
    assert "(first 2 shown)" in found._repr_html_()
    assert repr(found).splitlines()[-1].strip() == "and 2 more"


def test_a_comparison_is_drawn_in_one_call(small):
    found = measure(small, [Every(100), Exponential(50), Every(100) & Keep(2), Every(9_999)], [Uniform(), Zipf()])
    axes = found.plot()
    axes.figure.canvas.draw()
    assert axes.get_ylabel() == "latency, 99th percentile (ms)"
    with pytest.raises(PlotError, match="axes"):
        found.plot(ax=7)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"policies": []}, "no policy to compare"),
        ({"policies": {}}, "no policy to compare"),
        ({"policies": [Every(5), Every(5)]}, "duplicate policy"),
        ({"policies": [7]}, "not a policy"),
        ({"policies": Every(5)}, "expected a sequence or mapping of policy objects"),
        ({"policies": "Every(5)"}, "expected a sequence or mapping of policy objects"),
        ({"policies": [Keep(3)]}, "never makes a snapshot"),
        ({"policies": {7: Every(5)}}, "not the name of a policy"),
        ({"workloads": []}, "no workload to compare"),
        ({"workloads": [Uniform(), Uniform()]}, "duplicate workload"),
        ({"workloads": [Every(5)]}, "not a workload"),
        ({"budgets": ()}, "no budget"),
        ({"budgets": (-1,)}, "a budget in bytes must be an integer"),
        ({"budgets": (0,)}, "a budget in bytes must be an integer"),
        ({"budgets": (1.5,)}, "a budget in bytes must be an integer"),
        ({"budgets": (None, None)}, "duplicate budget"),
        ({"budgets": 5}, "budgets must be a sequence"),
        ({"seeds": ()}, "no seed"),
        ({"seeds": (-1,)}, "a seed must be an integer"),
        ({"seeds": (1, 1)}, "duplicate seed"),
        ({"seeds": (2**63,)}, "a seed must be an integer"),
        ({"budgets": (2**63,)}, "a budget in bytes must be an integer"),
        ({"seeds": 3}, "seeds must be a sequence"),
        ({"reads": 1}, "reads must be an integer"),
        ({"reads": -5}, "reads must be an integer"),
        ({"reads": True}, "reads must be an integer"),
        ({"name": ""}, "not the name of an experiment"),
        ({"name": 7}, "not the name of an experiment"),
    ],
    ids=str,
)
def test_invalid_arguments_are_refused_in_words(small, changed, words):
    with pytest.raises(SnapshotError, match=words):
        measure(small, **changed)


def test_unknown_aggregates_and_reducers_are_refused(small):
    with pytest.raises(UnknownAggregate, match="market/ETHUSDT"):
        measure(small, aggregate_id="market/ETHUSDT")
    with pytest.raises(ReducerError):
        measure(small, reducer=dict)


@pytest.mark.parametrize("events", [1, 2, 30])
def test_histories_of_few_events_are_compared_too(events):
    with el.open(":memory:") as lab:
        lab.append("market/A", [el.MarketData("A", 1.0, 1.0)] * events)
        frame = measure(lab, [Every(1), OnRead()], reads=4).frame
        assert frame["snapshots"][0] == events
