"""The cost model: what reads have to do, what is fitted to them, and what gap a budget allows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlab.snapshots.policy.cost_model import Model, Reads
from eventlab.store.segments import row_group_cache as decoded
from eventlab.store.segments.row_group_cache import RowGroupCache
from eventlab.timetravel.calibration import fitted

STARTS = np.arange(12) * 10 + 1
HEAD = 120


def a_model(**changed):
    """One whose parts are all to be seen in what it predicts."""
    parts = {
        "fixed": 5e-4, "event": 2e-6, "byte": 3e-9, "given": 1e-9, "joining": 1e-4, "opening": 2e-3,
        "group": np.array([4e-4, 6e-4, 3e-4]), "rest": np.ones(1), "long_rest": np.ones(1),
        "at": np.array([1, 60, 120]), "size": np.array([100.0, 50_000.0, 60_000.0]), "length": 10.0, "kept": 5,
    }  # fmt: skip
    return Model(**(parts | changed))


@given(st.lists(st.tuples(st.integers(0, HEAD), st.integers(0, HEAD)), min_size=1, max_size=40), st.integers(1, 11))
def test_what_is_decoded_is_what_the_store_decodes(drawn, kept):
    """The store's own memory of row groups, of one column of which so many fit in, says which are missing."""
    base, version = np.array([sorted(two) for two in drawn], np.int64).T
    reads = Reads.of(base, version, STARTS, kept)
    memory, asked, begins = RowGroupCache(), [], np.arange(HEAD // 10 + 2) * 10

    def decode(missing):
        asked.extend(missing)
        return {"x": np.zeros(10 * len(missing), np.int64)}

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(decoded, "MOST_BYTES", kept * 80)
        for at, (begin, end) in enumerate(zip(base.tolist(), version.tolist(), strict=True)):
            groups = sorted({(v - 1) // 10 for v in range(begin + 1, end + 1)})
            asked.clear()
            if 0 < len(groups) <= decoded.MOST_GROUPS:
                memory.columns("file", groups, ["x"], None, decode, begins)
                expected = len(asked)
            else:
                expected = len(groups)
            assert reads.decoded[at] == expected
            assert reads.joined[at] == (len(groups) == 2)


def test_without_a_limit_short_reads_find_all_decoded():
    reads = Reads.of(np.array([0, 0, 5, 5, 5]), np.array([0, 20, 5, 21, 120]), STARTS)
    assert reads.decoded.tolist() == [0, 0, 0, 3, 12]
    assert reads.joined.tolist() == [False, True, False, False, False]


def test_a_fit_predicts_reads_that_it_never_saw():
    draw = np.random.default_rng(4)

    def some(count):
        starts = np.arange(100) * 1_000 + 1
        base = draw.choice([0, 20_000, 40_000, 60_000], count)
        span = np.where(draw.random(count) < 0.7, 1_500, 40_000)
        version = base + (draw.random(count) * span).astype(np.int64)
        return Reads.of(base, version, starts)

    truth = a_model(at=np.array([1, 50_000, 100_000]), length=1_000.0)
    seen, unseen = some(250), some(100)
    seconds = truth.latencies(seen)
    seconds[::25] *= 20.0  # disturbed by something else
    model = fitted(seconds, seen, truth.at, truth.size, 1_000.0, 5)
    np.testing.assert_allclose(model.latencies(unseen), truth.latencies(unseen), rtol=1e-6)


def test_percentiles_are_of_both_kinds_of_reads_each_with_its_own_rest():
    model = a_model(rest=np.array([1.0, 3.0]), long_rest=np.array([1.0]), byte=0.0, given=0.0, event=0.0)
    reads = Reads.of(np.zeros(4, np.int64), np.array([1, 1, 120, 120]), STARTS)
    low, high = model.latencies(reads)[[0, 2]]
    assert model.quantiles(reads, (0.0, 1.0)) == pytest.approx([low, high])
    short = Reads.of(np.zeros(2, np.int64), np.ones(2, np.int64), STARTS)
    assert model.quantiles(short, (0.0, 0.5, 1.0)) == pytest.approx([low, 2 * low, 3 * low])


@given(st.floats(1e-4, 0.05), st.floats(1.0, 3.0), st.floats(1.0, 3.0))
def test_no_gap_within_a_budget_lets_a_read_take_longer(seconds, rest, long_rest):
    model = a_model(rest=np.array([rest]), long_rest=np.array([long_rest]), size=np.full(3, 60_000.0))

    def slowest(gap):
        base = np.arange(1, HEAD - gap + 1)
        reads = Reads.of(base, base + gap, STARTS)
        return float((model.latencies(reads) * np.where(reads.decoded > 0, long_rest, rest)).max())

    gap = model.gap(seconds)
    if 1 < gap < HEAD:
        assert slowest(gap) <= seconds * (1 + 1e-9)
    if gap <= model.length - 1:  # longer ones are bounded from the safe side
        assert slowest(gap + 1) > seconds
