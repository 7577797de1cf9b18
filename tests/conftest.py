"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No deadline: two busy cores are no failure. Folds are compiled inside an example now and then.
settings.register_profile("eventlab", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("eventlab")


@pytest.fixture(scope="session")
def market_data_dir() -> Path:
    """Real market data beside the repository; not part of it."""
    path = Path(__file__).parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("real market data is not there: no ../shared/data beside the repository")
    return path
