"""One calibration per reducer and history serves all tests of experiments, since each takes hundreds of reads."""

from __future__ import annotations

from typing import Any

import pytest

from eventlab.experiments import interleaved

_models: dict[tuple[str, str, int], Any] = {}


@pytest.fixture(autouse=True)
def _calibrated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calibrated = interleaved.calibrated

    def cached(store: Any, reducer: Any, aggregate: str) -> Any:
        key = reducer.fingerprint, aggregate, store.heads([aggregate])[0].version
        if key not in _models:
            _models[key] = calibrated(store, reducer, aggregate)
        return _models[key]

    monkeypatch.setattr(interleaved, "calibrated", cached)
