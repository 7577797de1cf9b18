"""Workloads: what is drawn is what the density says."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import SnapshotError

RECORDED = el.workloads.Recorded(np.array([3, 3, 40, 100]), np.array([50, 100, 100, 100]), smoothing=0.25)
ALL = (
    el.workloads.Uniform(), el.workloads.Zipf(1.2), el.workloads.Exponential(30), el.workloads.HotSpots(3, 0.05, 0.8),
    el.workloads.Drift(0.2), el.workloads.Scrubbing(20, 7), RECORDED,
)  # fmt: skip


@pytest.mark.parametrize("workload", ALL, ids=lambda one: type(one).__name__)
@given(st.integers(1, 400), st.integers(1, 60), st.integers(0, 10))
def test_densities_and_draws_stay_within_the_history(workload, head, reads, seed):
    density = workload.density(head)
    assert density.shape == (head + 1,)
    assert density[0] == 0.0
    assert (density >= 0.0).all()
    assert density.sum() == pytest.approx(1.0)
    drawn = workload.draw(head, reads, np.random.default_rng(seed))
    assert drawn.shape == (reads,)
    assert drawn.dtype == np.int64
    assert drawn.min() >= 1
    assert drawn.max() <= head
    assert np.array_equal(drawn, workload.draw(head, reads, np.random.default_rng(seed)))


@pytest.mark.parametrize("workload", ALL[:5], ids=lambda one: type(one).__name__)
def test_a_density_is_that_of_its_draws(workload):
    head, reads = 200, 200_000
    counts = np.bincount(workload.draw(head, reads, np.random.default_rng(1)), minlength=head + 1)
    expected = workload.density(head) * reads
    # A window that moves step by step is spread more evenly than by chance, never less.
    assert (np.abs(counts - expected) <= 6 * np.sqrt(expected) + 6).all()


def test_formulas():
    assert el.workloads.Zipf(2.0).density(3)[1:] == pytest.approx(np.array([1 / 9, 1 / 4, 1]) / (1 + 1 / 4 + 1 / 9))
    recent = el.workloads.Exponential(10).density(100)
    assert recent[90] == pytest.approx(recent[100] / 2)
    hot = el.workloads.HotSpots(1, 0.1, 0.9, seed=3).density(1_000)
    assert np.sort(hot)[-100:].sum() == pytest.approx(0.9 + 0.1 * 0.1)


def test_sessions_go_step_by_step_and_turn_back_at_the_ends():
    drawn = el.workloads.Scrubbing(steps=1_000, page=30).draw(100, 1_000, np.random.default_rng(0))
    assert np.abs(np.diff(drawn)).max() <= 30
    assert drawn.min() <= 5
    assert drawn.max() >= 96


def test_recorded_reads_come_back_in_their_order_scaled_to_the_history():
    drawn = RECORDED.draw(200, 6, np.random.default_rng(0))
    scaled = [12, 6, 80, 200]
    start = scaled.index(drawn[0])
    assert drawn.tolist() == [scaled[(start + at) % 4] for at in range(6)]
    frame = pl.DataFrame(
        {
            "reducer": ["Trades", "Trades", "Portfolio"], "aggregate_id": ["a", "b", "a"],
            "version": [3, 4, 5], "head": [10, 10, 10],
        }
    )  # fmt: skip
    assert el.workloads.Recorded.of(frame, "a").versions.tolist() == [3, 5]
    assert el.workloads.Recorded.of(frame, "a", "Trades").versions.tolist() == [3]
    with pytest.raises(SnapshotError, match="0 reads"):
        el.workloads.Recorded.of(frame, "c")


@pytest.mark.parametrize(
    "make",
    [
        lambda w: w.Zipf(0.0), lambda w: w.Zipf("a"), lambda w: w.Exponential(-1), lambda w: w.HotSpots(count=0),
        lambda w: w.HotSpots(width=1.5), lambda w: w.HotSpots(share=0.0), lambda w: w.HotSpots(seed=-1),
        lambda w: w.Drift(0.0), lambda w: w.Scrubbing(steps=0), lambda w: w.Scrubbing(page=True),
        lambda w: w.Recorded(np.array([2]), np.array([1])), lambda w: w.Recorded(np.array([0]), np.array([1])),
        lambda w: w.Recorded(np.array([1, 2]), np.array([1])), lambda w: w.Zipf(float("nan")),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises(SnapshotError):
        make(el.workloads)
