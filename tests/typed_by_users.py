"""What a user writes passes `mypy --strict` as it stands; `make lint` checks this file, nothing runs it."""

from __future__ import annotations

from typing import Any

import eventlab as el


@el.reducer
class Mine:
    """A reducer of a user."""

    total: float = 0.0
    positions = el.Keyed("symbol", quantity=float)

    def on_market_data(state: Any, event: Any) -> None:
        state.total += event.price
        state.positions[event.symbol].quantity += event.volume


@el.reducer
class Mean(el.Moments):
    """A reducer that inherits from a built-in one."""

    last: float = 0.0

    @property
    def distance(state: Any) -> float:
        """How far the last price is from the mean."""
        return float(state.last - state.mean)


def read(lab: el.Lab) -> list[object]:
    """States and histories of reducers, called for a parameter and not."""
    bars = el.TickBars(size=100)
    grid = [el.Ewma(alpha=alpha) for alpha in (0.1, 0.2)]
    return [
        lab.state(Mine, "market/BTCUSDT").total,
        lab.state(bars, "market/BTCUSDT", as_of=10),
        lab.states(grid, "market/*", executor=el.executors.Threads(2))[0].height,
        lab.states(el.Portfolio, "portfolio/*").height,
        lab.history(el.Ewma(alpha=0.5), "market/BTCUSDT", every="1m").height,
        lab.history(Mine, "market/BTCUSDT", at=["2024-08-09T00:00:00Z"]).height,
    ]
