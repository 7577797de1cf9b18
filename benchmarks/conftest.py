"""Sizes and data of the benchmarks: small as ordinary tests, full in `make bench`."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import eventlab as el

BOOK = "book/BTCUSDT"

Size = Callable[[int, int], int]


@pytest.fixture(scope="session")
def size(request: pytest.FixtureRequest) -> Size:
    """Returns its first argument when measuring, its second as an ordinary test."""
    full = request.config.getoption("benchmark_enable")
    return lambda measured, tested: measured if full else tested


@pytest.fixture(scope="session")
def trades(size: Size) -> pl.DataFrame:
    """Simulated trades of one market, as the feed yields them."""
    feed = el.feeds.simulate(symbols=("BTCUSDT",), trades=size(2_500_000, 5_000), seed=1, rate=1_000)
    return pl.concat([batch.frame for chunk in feed.chunks() for batch in chunk.batches])


@pytest.fixture(scope="session")
def trades_csv(trades: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trades in the layout of Binance's spot archive of 2025."""
    path = tmp_path_factory.mktemp("archive") / "BTCUSDT-trades-2025-01-01.csv"
    trades.select(
        pl.int_range(pl.len()) + 4_359_000_000,
        "price",
        "volume",
        (pl.col("price") * pl.col("volume")).round(8).alias("quote_qty"),
        pl.col("timestamp").dt.epoch("us"),
        pl.col("side") == "sell",
        pl.lit(True).alias("is_best_match"),
    ).write_csv(path, include_header=False)
    return path


@pytest.fixture(scope="session")
def trades_csv_gz(trades_csv: Path) -> Path:
    """The same file, compressed."""
    path = trades_csv.with_suffix(".csv.gz")
    path.write_bytes(gzip.compress(trades_csv.read_bytes(), compresslevel=1))
    return path


def store_of(path: Path, frames: Iterable[pl.DataFrame], event_class: type = el.MarketData, **options: Any) -> Path:
    """A closed store of these frames, a commit each, sealed."""
    with el.open(path) as lab:
        for frame in frames:
            lab.append_frame(event_class, frame, **options)
        lab.seal()
    return path


def dealt(frames: Iterable[pl.DataFrame], markets: int, *, seed: int, name: str = "{}") -> Iterator[pl.DataFrame]:
    """The frames with each row in one of so many markets, drawn at random."""
    draw = np.random.default_rng(seed)
    for frame in frames:
        market = pl.Series("aggregate_id", draw.integers(0, markets, len(frame)))
        yield frame.with_columns(pl.format(name, market).alias("aggregate_id"))


@pytest.fixture(scope="session")
def market_path(trades: pl.DataFrame, size: Size, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store with one market of up to a million trades, sealed."""
    parts = trades.head(size(1_000_000, 2_000)).iter_slices(size(250_000, 500))
    return store_of(tmp_path_factory.mktemp("market") / "lab", parts)


@pytest.fixture(scope="session")
def repeated(trades: pl.DataFrame, size: Size) -> list[pl.DataFrame]:
    """Ten million trades in commits of a million, the same ones over and over, each time later."""
    part = trades.head(size(1_000_000, 2_000))
    span = part["timestamp"].max() - part["timestamp"].min()
    return [part.with_columns(pl.col("timestamp") + span * turn) for turn in range(10)]


@pytest.fixture(scope="session")
def long_path(repeated: list[pl.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store with all of them in one market."""
    return store_of(tmp_path_factory.mktemp("long") / "lab", repeated)


@pytest.fixture(scope="session")
def ten_path(repeated: list[pl.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store with ten million trades of ten markets, a million each, sealed."""
    return store_of(tmp_path_factory.mktemp("ten") / "lab", dealt(repeated, 10, seed=11, name="market/{}"))


@pytest.fixture(scope="session")
def market_file(market_data_dir: Path, size: Size, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the path of a real Binance file; as an ordinary test, of its first lines only."""
    folder = tmp_path_factory.mktemp("first-lines")

    def find(name: str) -> Path:
        source = market_data_dir / "binance" / name
        lines = size(0, 5_000)
        if not lines:
            return source
        with gzip.open(source) as whole, gzip.open(folder / name, "w", compresslevel=1) as first:
            first.writelines(itertools.islice(whole, lines))
        return folder / name

    return find


@pytest.fixture(scope="session")
def book_path(market_file: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store with the changes of a real book, sealed."""
    path = tmp_path_factory.mktemp("book") / "lab"
    with el.open(path) as lab:
        lab.ingest(el.feeds.tardis_book(market_file("usdm_btcusdt_l2.csv.gz"), aggregate_id=BOOK), progress=False)
        lab.seal()
        lab.state(el.OrderBook, BOOK, interpret=False)  # compiling is timed in bench_start.py
    return path


@pytest.fixture
def ten(ten_path: Path) -> Iterator[el.Lab]:
    with el.open(ten_path, read_only=True) as lab:
        yield lab
