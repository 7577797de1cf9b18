"""A program as it was before a type changed: writes version 1 of Liquidation into the store it is told."""

from __future__ import annotations

import sys
from typing import Literal

import polars as pl

import eventlab as el

ROWS = 9_000
START = 1_704_067_200_000_000_000


@el.event
class Liquidation:
    symbol: el.Symbol
    price: float
    size: float
    side: Literal["buy", "sell"]
    note: str | None = None


def bulk() -> pl.DataFrame:
    rows = range(ROWS)
    return pl.DataFrame(
        {
            "symbol": [f"S{row % 3}" for row in rows],
            "price": [100.0 + row % 17 * 0.01 for row in rows],
            "size": [0.5 + row % 5 for row in rows],
            "side": [("buy", "sell")[row % 2] for row in rows],
            "note": [None if row % 4 else f"n{row}" for row in rows],
            "timestamp": [START + row * 1_000_000 for row in rows],
        }
    )


def main(path: str) -> None:
    """A bulk commit, sealed small ones, and a tail, with ids, causes and metadata among them."""
    with el.open(path) as lab:
        lab.append_frame(Liquidation, bulk(), aggregate_id="liquidations/{symbol}")
        lab.append("liquidations/S0", Liquidation("S0", 7.0, 2.0, "sell", "sealed"), event_id="first", cause=3)
        lab.append("signals", el.TradingSignal("S0", "buy", 1.0, "s"))
        lab.seal()
        lab.append("liquidations/S1", [Liquidation("S1", -0.0, 1.0, "buy"), Liquidation("S1", 5e-324, 1.0, "sell")],
                   metadata={"by": "old"})  # fmt: skip
        lab.append("liquidations/S0", Liquidation("S0", 9.0, 3.0, "buy", "tail"), event_id="second")


if __name__ == "__main__":
    main(sys.argv[1])
