"""What all tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# No deadline: two busy cores are no failure. Folds are compiled inside an example now and then.
# Sixty examples: `make test` is short, and a long search is `make nightly`'s.
settings.register_profile(
    "eventlab", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
# The same examples in every run: a red build means that the change broke something.
settings.register_profile("ci", settings.get_profile("eventlab"), derandomize=True)
# Long fuzzing: `make nightly`.
settings.register_profile("nightly", settings.get_profile("eventlab"), max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "eventlab"))


def pytest_collection_finish() -> None:
    """Take what collecting loaded out of the garbage collector's sight: each of its full passes takes 50 ms else."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let libraries free at the exit what they own: DuckDB counts it otherwise, and says so."""
    gc.unfreeze()


@pytest.fixture
def ticking() -> Iterator[int]:
    """Nanoseconds that rise by a second at each `next`, from 2024-01-01."""

    def ticks() -> Iterator[int]:
        now = 1_704_067_200_000_000_000
        while True:
            now += 1_000_000_000
            yield now

    return ticks()
