"""Placements are what a build would make, and making none leaves the lab as it was."""

from __future__ import annotations

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

import eventlab as el
from eventlab.errors import SnapshotError, UnknownAggregate
from eventlab.experiments import placement, placements
from eventlab.timetravel.calibration import calibrated

MARKET = "market/BTCUSDT"
POLICIES = {
    "every": el.snapshots.Every(700),
    "last": el.snapshots.Every(100) & el.snapshots.Keep(last=3),
    "recent": el.snapshots.Exponential(100) | el.snapshots.MaxGap(900),
    "hourly": el.snapshots.EveryTime("10s"),
    "on read": el.snapshots.OnRead(),
}


@pytest.fixture(scope="module")
def lab():
    with el.open(":memory:") as lab:
        lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=3_000, seed=1), progress=False)
        yield lab


def test_placements_are_what_a_build_makes(lab):
    found = placements(lab, el.Trades, POLICIES, el.workloads.Zipf())
    for name, policy in POLICIES.items():
        lab.snapshots.drop()
        lab.snapshots.policy = policy
        lab.snapshots.build(el.Trades, MARKET)
        np.testing.assert_array_equal(found.versions[name], lab.snapshots.table()["version"].to_numpy())
    assert (len(found.versions["every"]), len(found.versions["last"]), len(found.versions["on read"])) == (4, 3, 0)
    lab.snapshots.drop()


def test_none_is_made_and_what_reads_cost_is_measured_once_and_only_where_it_is_asked_for(lab, monkeypatch):
    measured: list[str] = []

    def noted(store, reducer, aggregate):
        measured.append(aggregate)
        return calibrated(store, reducer, aggregate)

    monkeypatch.setattr(placement, "calibrated", noted)
    placements(lab, el.Trades, POLICIES, el.workloads.Uniform())
    assert measured == []
    optimal = [el.snapshots.CostOptimal(), el.snapshots.CostOptimal(workload=el.workloads.Zipf())]
    found = placements(lab, el.Trades, optimal, el.workloads.Uniform())
    assert measured == [MARKET]
    assert len(found.versions) == 2
    assert lab.snapshots.table().is_empty()


def test_the_density_is_that_of_the_workload_and_both_are_drawn(lab):
    found = placements(lab, el.Trades, {"every": el.snapshots.Every(700)}, el.workloads.Zipf(), aggregate_id=MARKET)
    np.testing.assert_array_equal(found.density, el.workloads.Zipf().density(3_000))
    axes = found.plot()
    below = axes.figure.axes[1]
    assert [line.get_xdata().tolist() for line in below.get_lines()] == [[700, 1_400, 2_100, 2_800]]
    assert repr(found) == f"Placements of snapshots of Trades for {MARKET}: every: 4"
    plt.close("all")


@pytest.mark.parametrize(
    ("policies", "workload", "words"),
    [
        ([], el.workloads.Uniform(), "no policy"),
        ([el.snapshots.Every(1)] * 2, el.workloads.Uniform(), "duplicate"),
        ([el.snapshots.Keep(3)], el.workloads.Uniform(), "never makes"),
        ([el.snapshots.Every(1)], "zipf", "not a workload"),
        ([el.snapshots.CostOptimal(storage_budget=1)], el.workloads.Uniform(), "below one snapshot"),
    ],
)
def test_invalid_arguments_are_refused(lab, policies, workload, words):
    with pytest.raises(SnapshotError, match=words):
        placements(lab, el.Trades, policies, workload)


def test_unknown_aggregates_are_refused(lab):
    with pytest.raises(UnknownAggregate, match="market/ETHUSDT"):
        placements(lab, el.Trades, [el.snapshots.Every(1)], el.workloads.Uniform(), aggregate_id="market/ETHUSDT")
