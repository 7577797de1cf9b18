"""States, columns and their order of the built-in reducers never change: snapshots and users' tables rely on them."""

from __future__ import annotations

import hashlib
import random

import pytest

import eventlab as el
from eventlab import reducers

SETTINGS = {
    "BookDepth": {"levels": 3},
    "DollarBars": {"size": 900.0},
    "EwmaTime": {"half_life_ns": 2_000_000_000},
    "RollingCorrelation": {"window": 7},
    "RollingMoments": {"window": 5},
    "TickBars": {"size": 4},
    "TimeBars": {"width_ns": 5_000_000_000},
    "VolumeBars": {"size": 9.0},
}
SOURCES = {"BookDepth": "book", "OrderBook": "book", "OrderFlowImbalance": "quote", "FundingRate": "funding"}
SOURCES |= {"Portfolio": "portfolio", "Risk": "portfolio", "Signals": "signals"}


def _events(source, draw):
    symbol, price, size = draw.choice("ABC"), draw.randint(80, 120) / 8, draw.randint(0, 12) / 4
    if source == "market":
        return el.MarketData(symbol, price, size, draw.choice(["buy", "sell", None]))
    if source == "book":
        side = draw.choice(["bid", "ask"])
        return el.BookChange("A", side, price, size, draw.random() < 0.2, None, draw.choice([None, 1, 2]))
    if source == "quote":
        return el.Quote("A", price, size, price + 0.25, draw.randint(0, 12) / 4)
    if source == "funding":
        return el.Funding(symbol, draw.randint(-9, 9) / 64)
    if source == "signals":
        return el.TradingSignal(symbol, draw.choice(["buy", "sell", "hold"]), size, draw.choice(["slow", "fast"]))
    kind = draw.choice(["fill", "fill", "fill", "cash", "funding"])
    return el.PortfolioChange(symbol, draw.randint(-6, 6) / 4, price, draw.randint(0, 3) / 16, kind)


def _short(*parts):
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def lab():
    draw = random.Random(12)
    with el.open(":memory:") as made:
        for source in ("market", *dict.fromkeys(SOURCES.values())):
            times = [1_700_000_000_000_000_000]
            for _ in range(199):
                times.append(times[-1] + draw.choice([0, 0, 1, 999, 250_000_000, 3_000_000_000]))
            made.append(f"{source}/A", [_events(source, draw) for _ in times], timestamp=times)
        yield made


DIGESTS = {
    "BookDepth": ("be42a1b94a649739", "77b3943efccd8368"),
    "Correlation": ("470250d5a055aed3", "bade0ab0583a8e90"),
    "DollarBars": ("337265edea6a4308", "797dd2b7b6463655"),
    "Ewma": ("205583a01df9a6f6", "7fbd8b9c73bdf1dc"),
    "EwmaTime": ("c057ef1a441d89ae", "808d58fd1cd70d90"),
    "FundingRate": ("b55185e702015211", "8e011da62eee47f9"),
    "Moments": ("7c2aa874f8ddf27b", "02871e42e5194ede"),
    "OrderBook": ("16e4b728e4e94ec6", "e04b5432c2671790"),
    "OrderFlowImbalance": ("450c2eb23524e31a", "083f6e5093408244"),
    "Portfolio": ("ee8992c400bdffe9", "f08133cd5a70a0b4"),
    "RealizedVolatility": ("a0d5efab8e9d5cbb", "6b6b898fe337da13"),
    "Risk": ("287900740a775bc3", "1313a05ce0667f10"),
    "RollingCorrelation": ("4288e82d1631a5ef", "3f64bebd8a73a863"),
    "RollingMoments": ("57b94eb0da28c5ef", "0f3f77faa8915da2"),
    "Signals": ("86924b8e89e9e1c4", "01d2ff21a6491fc3"),
    "TickBars": ("79c460a203e9939f", "9f6328396b7d73d1"),
    "TimeBars": ("b296e398f96da3fa", "bb2fac8ceeaf58b7"),
    "Trades": ("8c116983299a6f34", "d53da92b19b9c605"),
    "Twap": ("6beafd6149cd50de", "d4cc7b1b4f680bf0"),
    "VolumeBars": ("667281ae045c66e4", "5e60341bed445dd3"),
    "Vwap": ("5b89be45572d0832", "7267b0110c069155"),
}


@pytest.mark.parametrize("name", reducers.__all__)
def test_the_digest_and_the_columns_are_those_of_every_version_before(lab, name):
    reducer = getattr(el, name)(**SETTINGS[name]) if name in SETTINGS else getattr(el, name)
    aggregate = f"{SOURCES.get(name, 'market')}/A"
    digests = [lab.state(reducer, aggregate, as_of=version, interpret=True).digest for version in (0, 57, 200)]
    rows = lab.history(reducer, aggregate, interpret=True)
    columns = [f"{column}:{kind}" for column, kind in rows.schema.items()]
    values = repr(rows.rows())
    assert (_short(*digests), _short(*columns, values)) == DIGESTS[name]
