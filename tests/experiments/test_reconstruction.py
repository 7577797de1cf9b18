"""Experiments measure what is there, prove that it is one answer, and leave the lab as it was."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest

import eventlab as el
from eventlab.errors import EventlabError, ReducerError, SnapshotError, UnknownAggregate
from eventlab.experiments import latency_by_length, measurement, reconstruction, snapshot_intervals

MARKET = "market/BTCUSDT"


@pytest.fixture
def lab(tmp_path):
    with el.open(tmp_path / "lab") as lab:
        lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=1_000, seed=1), progress=False)
        yield lab


def test_a_row_for_every_interval_in_the_order_given(lab):
    frame = snapshot_intervals(lab, el.Trades, MARKET, (100, None, 10), reads=7, progress=False)
    assert frame.schema == reconstruction.INTERVALS_SCHEMA
    assert frame["interval"].to_list() == [100, None, 10]
    assert frame["snapshots"].to_list() == [10, 0, 100]
    nothing, few, many = frame["bytes"][1], frame["bytes"][0], frame["bytes"][2]
    assert nothing == 0 < few < many
    assert frame["build_seconds"][1] == 0.0
    assert (frame.drop_nulls("interval")["build_seconds"] > 0.0).all()
    order = ["latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "latency_max_ms"]
    assert (frame["latency_p50_ms"] > 0.0).all()
    for low, high in itertools.pairwise(order):
        assert (frame[low] <= frame[high]).all()


def test_the_time_of_building_and_reading_is_that_of_as_many_median_reads(lab):
    frame = snapshot_intervals(lab, el.Trades, MARKET, (100, None), reads=7, progress=False)
    assert frame["reads"].to_list() == [7, 7]
    total = frame["build_seconds"] + 7 * frame["latency_p50_ms"] / 1e3
    assert ((frame["total_seconds"] / total - 1.0).abs() < 1e-12).all()
    assert frame["young"].to_list() == [None, None]  # one interval has no slope


@pytest.mark.parametrize("noise", [0.0, 0.001])
def test_youngs_interval_is_the_one_that_costs_least(noise):
    # A snapshot takes 20 µs, an event 0.1 µs, and of a million versions each is read 0.01 times.
    intervals = np.array([100, 1_000, 10_000, 2_000_000])
    snapshots = 1_000_000 // intervals
    frame = pl.DataFrame({
        "interval": intervals, "snapshots": snapshots, "build_seconds": 0.5 + 2e-5 * snapshots,
        "latency_p50_ms": 0.4 + 1e-4 * intervals / 2 + noise * np.array([1, -1, 1, 500]),
    })  # fmt: skip
    found = reconstruction._young(frame, 0.01)
    every = np.arange(1, 20_000)
    cost = 2e-5 / every + 0.01 * 1e-7 * every / 2
    assert found == pytest.approx(every[cost.argmin()], rel=0.02)


def test_where_reads_do_not_get_slower_youngs_interval_is_unknown():
    frame = pl.DataFrame({
        "interval": [10, 100], "snapshots": [100, 10], "build_seconds": [0.2, 0.1], "latency_p50_ms": [1.0, 0.9],
    })  # fmt: skip
    assert reconstruction._young(frame, 0.1) is None
    slower = frame.with_columns(latency_p50_ms=pl.Series([0.9, 1.0]))
    assert reconstruction._young(slower, 0.1) > 0.0
    assert reconstruction._young(slower.with_columns(build_seconds=pl.Series([0.1, 0.2])), 0.1) is None


def test_the_same_versions_are_read_at_every_interval_and_by_the_same_seed(lab, monkeypatch):
    seen: list[tuple[int, object]] = []
    read = measurement.Subject.read

    def noted(self, version, snapshots):
        seen.append((version, snapshots))
        return read(self, version, snapshots)

    monkeypatch.setattr(measurement.Subject, "read", noted)
    snapshot_intervals(lab, el.Trades, MARKET, (None, 50, 200), reads=9, seed=3, progress=False)
    first = [version for version, _ in seen]
    assert len({id(snapshots) for _, snapshots in seen}) == 3
    assert all(len(set(first[at : at + 3])) == 1 for at in range(0, len(first), 3))
    assert all(1 <= version <= 1_000 for version in first)
    seen.clear()
    snapshot_intervals(lab, el.Trades, MARKET, (None, 50, 200), reads=9, seed=3, progress=False)
    assert [version for version, _ in seen] == first
    seen.clear()
    snapshot_intervals(lab, el.Trades, MARKET, (None, 50, 200), reads=9, seed=4, progress=False)
    assert [version for version, _ in seen] != first


def test_the_lab_and_its_own_snapshots_stay_as_they_were(lab):
    lab.snapshots.policy = el.snapshots.Every(300)
    lab.snapshots.build(el.Trades)
    table, stop = lab.snapshots.table(), lab.store.stop_position
    snapshot_intervals(lab, el.Trades, MARKET, (None, 10), reads=3, progress=False)
    latency_by_length(lab, el.Trades, MARKET, repeats=1)
    assert lab.snapshots.table().equals(table)
    assert lab.snapshots.policy == el.snapshots.Every(300)
    assert lab.store.stop_position == stop


def test_intervals_are_compared_in_a_lab_opened_to_be_read(tmp_path):
    with el.open(tmp_path / "lab") as lab:
        lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=300), progress=False)
    with el.open(tmp_path / "lab", read_only=True) as lab:
        frame = snapshot_intervals(lab, el.Trades, MARKET, (None, 100), reads=2, progress=False)
    assert frame["snapshots"].to_list() == [0, 3]
    assert not (tmp_path / "lab" / "snapshots").exists()


def test_a_state_that_depends_on_its_snapshots_is_an_error(lab, monkeypatch):
    read = measurement.Subject.read
    monkeypatch.setattr(
        measurement.Subject,
        "read",
        lambda self, version, snapshots: (read(self, version, snapshots)[0], str(id(snapshots))),
    )
    with pytest.raises(SnapshotError, match="depends on the snapshots"):
        snapshot_intervals(lab, el.Trades, MARKET, (None, 100), reads=1, progress=False)


def test_an_interval_longer_than_the_history_makes_no_snapshot(lab):
    frame = snapshot_intervals(lab, el.Trades, MARKET, (10_000,), reads=1, progress=False)
    assert frame.select("snapshots", "bytes").row(0) == (0, 0)


def test_keyed_state_and_one_event_are_measured_too(lab):
    lab.append("signals/one", el.TradingSignal("BTCUSDT", "buy", 1.0, "one"))
    frame = snapshot_intervals(lab, el.Signals, "signals/one", (None, 1), reads=2, progress=False)
    assert frame["snapshots"].to_list() == [0, 1]
    assert latency_by_length(lab, el.Signals, "signals/one")["version"].to_list() == [1]


def test_lengths_are_spread_up_to_the_head(lab):
    frame = latency_by_length(lab, el.Trades, MARKET, repeats=2)
    assert frame.schema == reconstruction.LENGTHS_SCHEMA
    versions = frame["version"].to_list()
    assert versions == sorted(set(versions))
    assert (versions[0], versions[-1], len(versions)) == (10, 1_000, 12)
    rate = frame["version"] / (frame["latency_ms"] / 1e3)
    assert ((frame["events_per_second"] / rate - 1.0).abs() < 1e-9).all()


def test_lengths_keep_the_order_they_are_given_in(lab):
    assert latency_by_length(lab, el.Trades, MARKET, [500, 1, 500])["version"].to_list() == [500, 1, 500]
    assert latency_by_length(lab, el.Trades, MARKET, pl.Series([7]).to_numpy())["version"].to_list() == [7]


def test_lengths_are_measured_with_the_labs_snapshots_where_asked_for(lab, monkeypatch):
    lab.snapshots.policy = el.snapshots.Every(300)
    lab.snapshots.build(el.Trades)
    lab.snapshots.policy = el.snapshots.OnRead()
    table, policy, own = lab.snapshots.table(), lab.snapshots.policy, lab.snapshots
    seen: list[tuple[int, object]] = []
    read = measurement.Subject.read

    def noted(self, version, snapshots):
        seen.append((version, snapshots))
        return read(self, version, snapshots)

    monkeypatch.setattr(measurement.Subject, "read", noted)
    frame = latency_by_length(lab, el.Trades, MARKET, [999, 5], repeats=2, with_snapshots=True)
    assert frame.schema == {**reconstruction.LENGTHS_SCHEMA, "latency_with_ms": pl.Float64}
    assert (frame["latency_with_ms"] > 0.0).all()
    assert seen == [(999, None), (999, own), (5, None), (5, own), (999, own), (999, None), (5, own), (5, None)]
    assert lab.snapshots.table().equals(table)
    assert lab.snapshots.policy is policy


def test_snapshots_that_are_not_there_are_not_measured(lab):
    with pytest.raises(SnapshotError, match="no snapshots of Trades to measure; got none of 'market/BTCUSDT'"):
        latency_by_length(lab, el.Trades, MARKET, [500], with_snapshots=True)
    lab.snapshot(el.Trades, MARKET, 600)
    with pytest.raises(SnapshotError, match="up to version 500"):
        latency_by_length(lab, el.Trades, MARKET, [500], with_snapshots=True)


def test_lengths_with_states_that_differ_are_no_measurement_and_the_policy_stays(lab, monkeypatch):
    lab.snapshot(el.Trades, MARKET, 600)
    policy, read = lab.snapshots.policy, measurement.Subject.read
    monkeypatch.setattr(measurement.Subject, "read", lambda s, version, way: (read(s, version, way)[0], str(way)))
    with pytest.raises(SnapshotError, match="depends on the snapshots"):
        latency_by_length(lab, el.Trades, MARKET, [700], with_snapshots=True)
    assert lab.snapshots.policy is policy


@pytest.mark.parametrize(
    "intervals", [(), (0,), (-1,), (True,), (1.5,), ("100",), (100, 100), "100", 100, (None, None)]
)
def test_invalid_intervals_are_refused(lab, intervals):
    with pytest.raises(SnapshotError, match="interval"):
        snapshot_intervals(lab, el.Trades, MARKET, intervals, progress=False)


@pytest.mark.parametrize("reads", [0, -1, True, 2.0, None])
def test_invalid_reads_are_refused(lab, reads):
    with pytest.raises(SnapshotError, match="reads must be an integer"):
        snapshot_intervals(lab, el.Trades, MARKET, reads=reads, progress=False)


@pytest.mark.parametrize("seed", [-1, True, None, "0"])
def test_invalid_seeds_are_refused(lab, seed):
    with pytest.raises(SnapshotError, match="seed must be an integer"):
        snapshot_intervals(lab, el.Trades, MARKET, seed=seed, progress=False)


@pytest.mark.parametrize("lengths", [[], [0], [-5], [True], [1_001], ["10"], "10", 10])
def test_invalid_lengths_are_refused(lab, lengths):
    with pytest.raises(SnapshotError, match="length"):
        latency_by_length(lab, el.Trades, MARKET, lengths)


def test_a_length_past_the_head_says_where_the_head_is(lab):
    with pytest.raises(
        SnapshotError, match=r"past the last version of 'market/BTCUSDT'; got 1001; expected at most 1000"
    ):
        latency_by_length(lab, el.Trades, MARKET, [1_001])


@pytest.mark.parametrize("measure", [snapshot_intervals, latency_by_length])
def test_unknown_aggregates_and_reducers_are_refused(lab, measure):
    with pytest.raises(UnknownAggregate, match="market/ETHUSDT"):
        measure(lab, el.Trades, "market/ETHUSDT")
    with pytest.raises(UnknownAggregate):
        measure(lab, el.Trades, 7)
    with pytest.raises(ReducerError):
        measure(lab, dict, MARKET)
    with pytest.raises(EventlabError):
        measure(lab, el.Trades, MARKET, [0])


@pytest.mark.parametrize("repeats", [0, -1, True])
def test_invalid_repeats_are_refused(lab, repeats):
    with pytest.raises(SnapshotError, match="repeats"):
        latency_by_length(lab, el.Trades, MARKET, repeats=repeats)
