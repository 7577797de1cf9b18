"""What tests, doctests and benchmarks share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def kernels_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """All processes of this run share their compiled kernels, and use none of another state of the code."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    os.environ["EVENTLAB_KERNELS"] = str(shared / "kernels")
    yield
    del os.environ["EVENTLAB_KERNELS"]


@pytest.fixture(scope="session")
def market_data_dir() -> Path:
    """Real market data in a folder next to the repository; not part of it."""
    path = Path(__file__).parents[1] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no real market data: ../shared/data does not exist")
    return path
