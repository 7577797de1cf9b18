"""What the tests of read models share."""

from __future__ import annotations

from typing import Any

import polars as pl

import eventlab as el


def fill(quantity: float = 1.0, symbol: str = "BTC", price: float = 100.0) -> el.PortfolioChange:
    return el.PortfolioChange(symbol, quantity, price, fee=0.1)


def bulk(rows: int) -> pl.DataFrame:
    """Fills, many at once."""
    return pl.DataFrame({"symbol": ["BTC"] * rows, "quantity": 1.0, "price": 100.0})


def assert_is_replay(lab: el.Lab, projection: Any, pattern: str = "*") -> None:
    """The projection's states are, bit for bit, those that the events below its position add up to."""
    if projection.position == 0:
        assert projection.frame().is_empty()
        return
    moment = el.AsOf(position=projection.position - 1)
    replay = lab.states(projection.reducer, pattern, moment)
    replay = replay.filter(replay["version"] > 0)
    assert projection.frame(pattern).equals(replay)
    for aggregate in replay["aggregate_id"]:
        here, there = projection.state(aggregate), lab.state(projection.reducer, aggregate, moment)
        assert (here.digest, here.version, here.position) == (there.digest, there.version, there.position)


def checkpoints(lab: el.Lab) -> list[tuple[str, str, int]]:
    """Name, fingerprint and position of every checkpoint in the catalog."""
    query = "SELECT name, fingerprint, position FROM checkpoints ORDER BY name, position"
    return lab.store._catalog.execute(query).fetchall()
