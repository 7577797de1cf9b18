"""An empty lab in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import eventlab as el
from eventlab.lab.lab import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    with el.open(":memory:") as opened:
        yield opened
