"""Labs with events and snapshots of every built-in reducer, and the files of those snapshots."""

from __future__ import annotations

import eventlab as el
from eventlab.snapshots.policy.rules import Every
from tests.fold.kitchen import Tick
from tests.timetravel.worlds import NAMES, SECOND, T0, clock


def filled(path=":memory:", count=40):
    """A lab with events of every built-in reducer in each of three aggregates."""
    lab = el.open(path, durability="full" if path == ":memory:" else "relaxed", clock=clock())
    for number in range(count):
        for name in NAMES:
            events = [
                el.MarketData("A", 10.0 + number % 7, 1.0 + number),
                el.BookChange(
                    "A", "bid" if number % 3 else "ask", 10.0 + number % 5, float(number % 4), update_id=number
                ),
                el.TradingSignal("A", "buy", float(number), "s"),
                el.PortfolioChange("A", float(number % 5 - 2), 10.0 + number % 7, 0.1),
                Tick("a", "w", x=float(number), n=number),
            ]
            lab.append(name, events, timestamp=T0 + number * SECOND)
    lab.snapshots.policy = Every(100)
    return lab


def files(path):
    return sorted((path / "snapshots").glob("*.snapshots"))


def counting(step):
    """A reducer of one name whose constant differs."""

    def on_market_data(state, event):
        state.total += step

    return el.reducer(
        type("Counting", (), {"__annotations__": {"total": float}, "total": 0.0, "on_market_data": on_market_data})
    )
