"""The reducers that the demo folds with, as what `@el.reducer` makes of a class: mypy takes them for the class."""

from __future__ import annotations

from typing import cast

from eventlab import reducers
from eventlab.fold.declaration import Reducer

TRADES = cast(Reducer, reducers.Trades)
BOOK = cast(Reducer, reducers.OrderBook)
SIGNALS = cast(Reducer, reducers.Signals)
PORTFOLIO = cast(Reducer, reducers.Portfolio)
