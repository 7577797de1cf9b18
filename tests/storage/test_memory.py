"""A storage in memory passes the suite."""

from __future__ import annotations

import pytest

from eventlab.storage.memory import MemoryStorage
from eventlab.testing.storage import StorageSuite


class TestMemoryStorage(StorageSuite):
    @pytest.fixture
    def storage(self) -> MemoryStorage:
        return MemoryStorage()
