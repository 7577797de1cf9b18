"""States across aggregates as plainly as they can be said: collect, sort, one event after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, ClassVar

from tests import naive_folds
from tests.naive_folds import wrapped


class Portfolio(naive_folds.Portfolio):
    """Marked: a trade is the new last price of a symbol that has a position."""

    heard = ("PortfolioChange",)
    routed: ClassVar = {"MarketData": "symbol"}

    def mark(self, event: Any, version: int, position: int, timestamp: int) -> None:
        for row in self.positions:
            if row["symbol"] == event.symbol:
                row["last_price"] = event.price


class Desk:
    """The twin of `tests.timetravel.desks.Desk`."""

    heard = ("Tick", "Funding")
    routed: ClassVar = {"MarketData": "symbol", "Quote": "symbol", "News": "word"}

    def __init__(self) -> None:
        self.log = self.own_version = self.other_version = self.seen_position = self.seen_time = 0
        self.by: list[dict[str, Any]] = []

    def row(self, symbol: str) -> dict[str, Any]:
        for row in self.by:
            if row["symbol"] == symbol:
                return row
        self.by.append({"symbol": symbol, "own": 0, "value": 0.0})
        return self.by[-1]

    def apply(self, event: Any, version: int, position: int, timestamp: int) -> None:
        if type(event).__name__ == "Tick":
            self.log, self.own_version = wrapped(self.log * 7 + 1), version
            self.row(event.symbol)["own"] += 1
        elif type(event).__name__ == "Funding":
            self.log = wrapped(self.log * 7 + 2)

    def mark(self, event: Any, version: int, position: int, timestamp: int) -> None:
        kind = type(event).__name__
        self.log = wrapped(self.log * 7 + {"MarketData": 3, "Quote": 4, "News": 5}[kind])
        self.seen_position, self.seen_time = position, timestamp
        if kind == "News":
            return
        self.other_version = version
        row = self.row(event.symbol)
        row["value"] = row["value"] * 0.5 + (event.price if kind == "MarketData" else event.bid_price)

    def record(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "by"}

    def properties(self) -> dict[str, Any]:
        return {"rows": len(self.by)}

    def tables(self) -> dict[str, Any]:
        return {"by": self.by}


def included(entry: Any, moment: Any) -> bool:
    if moment.time is not None and entry.timestamp > moment.time:
        return False
    if moment.position is not None and entry.position > moment.position:
        return False
    return moment.known_at is None or entry.recorded_at <= moment.known_at


def marked(
    twin: Callable[[], Any], entries: Iterable[Any], aggregate: str, others: Collection[str], moment: Any
) -> tuple[Any, int]:
    """The state, and how many own events it includes.

    `entries` have position, aggregate, version, timestamp, recorded_at and event.
    """
    state, named, version = twin(), set(), 0
    ordered = sorted(entries, key=lambda entry: (entry.timestamp, entry.position))
    if moment.version is not None:
        own = [at for at, entry in enumerate(ordered) if entry.aggregate == aggregate]
        ordered = ordered[: own[moment.version - 1] + 1] if moment.version else []
    for entry in ordered:
        if not included(entry, moment):
            continue
        kind = type(entry.event).__name__
        numbers = (entry.version, entry.position, entry.timestamp)
        if entry.aggregate == aggregate:
            version = entry.version
            state.apply(entry.event, *numbers)
            if kind in state.heard:
                named |= {(key, getattr(entry.event, key, None)) for key in ("symbol", "word")}
        elif entry.aggregate in others and kind in state.routed:
            key = state.routed[kind]
            value = getattr(entry.event, key)
            if value is not None and (key, value) in named:
                state.mark(entry.event, *numbers)
    return state, version
