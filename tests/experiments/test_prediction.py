"""Predictions beside measurements: of the right reads, without touching the lab."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import eventlab as el
from eventlab.errors import ReducerError, SnapshotError, UnknownAggregate
from eventlab.experiments import prediction
from eventlab.experiments.prediction import PREDICTIONS_SCHEMA, predicted_latencies
from eventlab.timetravel.calibration import Calibration

S = el.snapshots


@pytest.fixture
def lab():
    made = el.open(":memory:")
    made.ingest(el.feeds.simulate(symbols=("A",), trades=3_000), progress=False)
    return made


def predicted(lab, *policies, **asked):
    return predicted_latencies(lab, el.Trades, policies, reads=12, progress=False, **asked)


def test_a_row_without_snapshots_and_one_for_each_policy(lab):
    found = predicted(lab, S.Every(1_000), S.Every(500))
    assert found.schema == PREDICTIONS_SCHEMA
    assert found["policy"].to_list() == [None, "Every(n=1000)", "Every(n=500)"]
    assert found["snapshots"].to_list() == [0, 3, 6]
    for q in ("p50", "p95"):
        ratio = found[f"predicted_{q}_ms"] / found[f"measured_{q}_ms"]
        np.testing.assert_allclose(found[f"ratio_{q}"], ratio)
        assert (ratio > 0).all()


def test_a_mapping_gives_names_and_the_default_is_the_labs(lab):
    found = predicted_latencies(lab, el.Trades, {"mine": S.Every(1_000)}, reads=5, progress=False)
    assert found["policy"].to_list() == [None, "mine"]
    found = predicted_latencies(lab, el.Trades, reads=5, progress=False)
    assert found["policy"].to_list() == [None, repr(lab.snapshots.policy)]


def test_the_model_is_not_fitted_to_the_reads_it_is_held_against(lab, monkeypatch):
    ways, fits = [], []

    class Way(prediction._PolicyReads):
        def __init__(self, *given):
            super().__init__(*given)
            ways.append(self)

    class Watched(Calibration):
        def __init__(self, *given):
            super().__init__(*given)
            fits.append(self)

    monkeypatch.setattr(prediction, "_PolicyReads", Way)
    monkeypatch.setattr(prediction, "Calibration", Watched)
    found = predicted_latencies(lab, el.Trades, [S.Every(700)], reads=100, progress=False)
    (fit,) = fits
    assert (fit.seconds > 0).all()
    none, every = ways
    np.testing.assert_array_equal(none.version, every.version)
    assert not np.isin(none.version, fit.version).any()
    assert found["reads"].to_list() == [len(none.version)] * 2
    assert not none.base.any()
    np.testing.assert_array_equal(every.base, every.version // 700 * 700)


def test_the_lab_and_its_own_snapshots_stay_as_they_were(lab):
    lab.snapshots.policy = S.OnRead()
    lab.snapshot(el.Trades, "market/A", 1_234)
    before = lab.snapshots.table()
    predicted(lab, S.Every(500), S.OnRead())
    assert lab.snapshots.table().equals(before)
    assert lab.snapshots.policy == S.OnRead()


def test_many_row_groups_are_predicted_too(tmp_path):
    with el.open(tmp_path / "lab") as lab:
        lab.ingest(el.feeds.simulate(symbols=("A",), trades=70_000), progress=False)
        lab.seal()
    with el.open(tmp_path / "lab", read_only=True) as lab:
        found = predicted(lab, S.Every(10_000))
        assert found["snapshots"].to_list() == [0, 7]
        assert found.select(pl.col("^ratio.*$") > 0).to_numpy().all()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"policies": [3]}, "not a policy"), ({"policies": []}, "no policy"),
        ({"policies": [S.Keep(2)]}, "never makes a snapshot"), ({"workload": "uniform"}, "not a workload"),
        ({"reads": 0}, "reads must be"), ({"seed": -1}, "seed must be"),
    ],
)  # fmt: skip
def test_invalid_arguments_are_refused_in_words(lab, changed, words):
    with pytest.raises(SnapshotError, match=words):
        predicted_latencies(lab, el.Trades, **({"progress": False} | changed))


def test_a_history_without_other_versions_is_refused():
    lab = el.open(":memory:")
    lab.append("a", el.MarketData("A", 1.0, 1.0))
    with pytest.raises(SnapshotError, match="fitted to all drawn versions; got 1 events"):
        predicted_latencies(lab, el.Trades, progress=False)


def test_unknown_aggregates_and_reducers_are_refused(lab):
    with pytest.raises(UnknownAggregate):
        predicted(lab, S.Every(100), aggregate_id="market/B")
    with pytest.raises(ReducerError):
        predicted_latencies(lab, el.MarketData, progress=False)
