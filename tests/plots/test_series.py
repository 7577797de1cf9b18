from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from eventlab.plots import (
    series,
)


@given(
    values=st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=400),
    gaps=st.lists(st.integers(0, 10**9), min_size=400, max_size=400),
    pixels=st.integers(1, 20),
)
def test_thinning_keeps_what_shows(values, gaps, pixels):
    moments = np.cumsum(gaps[: len(values)]).astype("datetime64[ns]")
    numbers = np.array(values)
    times, kept = series.downsample(moments, numbers, pixels)
    assert len(kept) <= min(len(values), 4 * pixels)
    assert (times[1:] >= times[:-1]).all()
    assert (times[0], times[-1]) == (moments[0], moments[-1])
    pairs = set(zip(moments.tolist(), map(repr, numbers), strict=True))
    assert set(zip(times.tolist(), map(repr, kept), strict=True)) <= pairs
    if not np.isnan(numbers).all():
        assert (np.nanmin(kept), np.nanmax(kept)) == (np.nanmin(numbers), np.nanmax(numbers))


@given(
    sizes=st.lists(st.integers(0, 1_000), min_size=1, max_size=200),
    gaps=st.lists(st.integers(0, 10**12), min_size=200, max_size=200),
    least=st.integers(1, 10**10),
)
def test_sums_leave_nothing_out(sizes, gaps, least):
    moments = (np.cumsum(gaps[: len(sizes)]) + 10**18).astype("datetime64[ns]")
    starts, totals, step = series.bin_sums(moments, np.array(sizes, float), least=least)
    assert totals.sum() == sum(sizes)
    assert len(totals) <= 150
    assert step >= least
    assert starts[0] <= moments[0]
    assert moments[-1] < starts[-1] + np.timedelta64(step, "ns")
    assert (starts.astype(np.int64) % step == 0).all()
