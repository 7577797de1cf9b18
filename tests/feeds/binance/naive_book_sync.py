"""Binance's snapshot rule and a level-2 book, as plainly as they can be written: the twins of the columnar ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    row: int
    symbol: str
    snapshot: bool
    update_id: int  # -1: the file has none


def apply_rule(rows: list[Row]) -> dict[str, list[int]]:
    """Row numbers of each symbol in the order they are applied in; what is not there was dropped."""
    symbols = dict.fromkeys(row.symbol for row in rows)
    return {symbol: _one_symbol([row for row in rows if row.symbol == symbol]) for symbol in symbols}


def _one_symbol(rows: list[Row]) -> list[int]:
    applied: list[int] = []
    waiting: list[Row] = []
    current: int | None = None

    def take(change: Row, after: int, *, fresh: bool) -> None:
        upcoming = _next_snapshot(rows, after)
        if fresh and current is not None and change.update_id != -1 and change.update_id <= current:
            return
        reset = upcoming is not None and current is not None and upcoming < current
        if upcoming not in (None, -1) and not reset and change.update_id > upcoming:
            waiting.append(change)
        elif current is not None or upcoming is None:
            applied.append(change.row)

    for at, row in enumerate(rows):
        if not row.snapshot:
            take(row, at, fresh=True)
            continue
        current = row.update_id
        applied.append(row.row)
        goes_on = at + 1 < len(rows) and rows[at + 1].snapshot and rows[at + 1].update_id == row.update_id
        if not goes_on:
            buffered, waiting = waiting, []
            for change in buffered:
                take(change, at, fresh=False)
    return applied


def _next_snapshot(rows: list[Row], after: int) -> int | None:
    return next((row.update_id for row in rows[after + 1 :] if row.snapshot), None)


class DictBook:
    """A book as two dicts."""

    def __init__(self) -> None:
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self._in_snapshot: int | None = None

    def change(self, side: str, price: float, size: float, snapshot: bool, update_id: int | None) -> None:
        key = (update_id if update_id is not None else -1) if snapshot else None
        if snapshot and key != self._in_snapshot:
            self.bids.clear()
            self.asks.clear()
        self._in_snapshot = key
        levels = self.bids if side == "bid" else self.asks
        if size == 0:
            levels.pop(price, None)
        else:
            levels[price] = size

    def best(self) -> tuple[float, float, float, float]:
        bid, ask = max(self.bids), min(self.asks)
        return bid, self.bids[bid], ask, self.asks[ask]
