"""What single policies and their compositions choose, against plain sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import SnapshotError
from eventlab.snapshots.policy.history import Past
from eventlab.snapshots.policy.rules import Every, Keep, MaxGap, OnRead, Read
from tests.examples import examples


@given(st.integers(1, 50), st.integers(0, 300), st.integers(0, 300))
def test_every_n_says_exactly_the_multiples(n, after, upto):
    policy = Every(n)
    expected = [version for version in range(after + 1, upto + 1) if version % n == 0]
    assert policy.versions(Past(upto, after)).tolist() == expected
    assert [version for version in range(after + 1, upto + 1) if policy.should_snapshot(version)] == expected
    assert not policy.should_snapshot(0)


@pytest.mark.parametrize("n", [0, -1, True, False, "x", 1.5, None, np.float64(3), 2**63])
def test_a_bad_interval_is_refused(n):
    with pytest.raises(SnapshotError, match="Every takes a positive number of events"):
        Every(n)


def test_an_interval_of_numpy_is_one_of_python():
    policy = Every(np.int64(7))
    assert policy == Every(7)
    assert repr(policy) == "Every(n=7)"


@pytest.mark.parametrize("policy", [100, "Every", None, object()])
def test_what_is_no_policy_is_refused(policy):
    lab = el.open(":memory:")
    with pytest.raises(SnapshotError, match="not a snapshot policy"):
        lab.snapshots.policy = policy


def with_gaps_filled(versions, n, after, head):
    """The versions, and every n-th after each of them, up to the next."""
    found = set(versions)
    for start, stop in zip([after, *versions], [*versions, head + 1], strict=True):
        found.update(range(start + n, stop, n))
    return sorted(found)


POLICIES = st.lists(st.integers(1, 9).map(Every), min_size=1, max_size=3)


@examples(60)
@given(POLICIES, st.integers(1, 9), st.integers(0, 60), st.integers(1, 60))
def test_a_gap_is_filled_between_what_the_others_make(policies, n, after, length):
    past = Past(after + length, after)
    made = sorted({int(version) for policy in policies for version in policy.versions(past)})
    for order in ([MaxGap(n), *policies], [*policies, MaxGap(n)]):
        composed = order[0]
        for policy in order[1:]:
            composed = composed | policy
        assert composed.versions(past).tolist() == with_gaps_filled(made, n, after, past.head)


@examples(60)
@given(POLICIES, st.integers(1, 4), st.integers(0, 60), st.integers(1, 60))
def test_the_last_are_kept_of_what_the_others_make(policies, last, after, length):
    past = Past(after + length, after)
    made = sorted(set.intersection(*({int(version) for version in policy.versions(past)} for policy in policies)))
    for order in ([Keep(last), *policies], [*policies, Keep(last)]):
        composed = order[0]
        for policy in order[1:]:
            composed = composed & policy
        assert composed.versions(past).tolist() == made[-last:]
        assert composed.retain(past, np.arange(1, 6)).tolist() == list(range(1, 6))[-last:]
    assert (Every(1) | Keep(last)).versions(past).tolist() == list(range(after + 1, past.head + 1))


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (OnRead() & MaxGap(10), [False, True, True]),
        (OnRead() & Every(10), [False, True, False]),
        (OnRead() & Keep(3), [True, True, True]),
        (OnRead() | MaxGap(10), [True, True, True]),
    ],
    ids=str,
)
def test_a_read_is_kept_where_all_that_look_at_it_say_so(policy, wanted):
    reads = [Read(version=109, base=100, seconds=0.0), Read(110, 100, 0.0), Read(119, 100, 0.0)]
    assert [policy.after_read(read) for read in reads] == wanted
