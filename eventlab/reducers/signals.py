"""What strategies have said: the latest signal, and the latest by symbol."""

from __future__ import annotations

from typing import Any

from eventlab.fold.declare.layout import Keyed
from eventlab.fold.declare.reducer import reducer


@reducer
class Signals:
    """The last trading signal of an aggregate, how many there were, and the last one of every symbol."""

    symbol: str = ""
    action: str = ""
    strength: float = 0.0
    strategy: str = ""
    count: int = 0
    by_symbol = Keyed("symbol", action=str, strength=float, strategy=str, count=int)

    def on_trading_signal(state: Any, event: Any) -> None:
        state.symbol = event.symbol
        state.action = event.action
        state.strength = event.strength
        state.strategy = event.strategy
        state.count += 1
        row = state.by_symbol[event.symbol]
        row.action = event.action
        row.strength = event.strength
        row.strategy = event.strategy
        row.count += 1
