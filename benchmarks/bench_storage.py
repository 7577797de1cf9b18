"""Bytes on disk of the real files, everything counted, compared with other formats."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import eventlab as el
from benchmarks import arctic
from benchmarks.measure import note
from eventlab.errors import SequenceGap
from eventlab.events.types import EventType

# Packed rows of fixed width: numbers and times take 8 bytes, closed vocabularies and booleans one. The symbol, the same
# in all of a file's rows, is not counted, nor is the envelope but for its timestamp: the other side is as small as it
# can be. Arrow's own columns have the same widths.
_WIDTHS = {"float": 8, "int": 8, "time": 8, "bool": 1, "enum": 1, "symbol": 0, "string": 0}
_ALL = ("position", "aggregate_id", "version", "timestamp")


def _row_bytes(declared: EventType) -> int:
    return 8 + sum(_WIDTHS[field.kind] for field in declared)


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def six(market_file: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The six files in one closed store."""
    path = tmp_path_factory.mktemp("six") / "lab"
    with el.open(path) as lab, warnings.catch_warnings():
        warnings.simplefilter("ignore", SequenceGap)
        for market in ("spot", "usdm"):
            for feed in (
                el.feeds.binance_trades(
                    market_file(f"{market}_btcusdt_trades.csv.gz"), "BTCUSDT", aggregate_id=f"market/{market}"
                ),
                el.feeds.tardis_book(market_file(f"{market}_btcusdt_l2.csv.gz"), aggregate_id=f"book/{market}"),
                el.feeds.tardis_quotes(market_file(f"{market}_btcusdt_bbo.csv.gz"), aggregate_id=f"quote/{market}"),
            ):
                lab.ingest(feed, progress=False)
        lab.seal()
    return path


@pytest.fixture(scope="module")
def packed(six: Path) -> tuple[int, int]:
    """Events, and their bytes as packed rows."""
    with el.open(six, read_only=True) as lab:
        counts = {kind: lab.events(kind, columns=["position"]).height for kind in lab.store.types()}
        return sum(counts.values()), sum(_row_bytes(lab.store.types()[kind]) * rows for kind, rows in counts.items())


def test_parquet(benchmark: Any, six: Path, packed: tuple[int, int]) -> None:
    events, rows = packed
    benchmark.pedantic(lambda: _bytes(six), rounds=1)
    note(
        benchmark, row="room: six real Binance files in one store, all its files", events=events,
        stored_bytes=_bytes(six), raw_bytes=rows, against="packed rows of fixed width", wanted_share=0.12,
    )  # fmt: skip


def test_archive(benchmark: Any, six: Path, packed: tuple[int, int], tmp_path: Path) -> None:
    events, rows = packed
    path = tmp_path / "lab"
    with el.open(six, read_only=True) as lab:
        lab.backup(path)

    def archive() -> None:
        with el.open(path) as lab:
            lab.archive()
            lab.vacuum()

    benchmark.pedantic(archive, rounds=1)
    note(
        benchmark, row="room: the same, archived", events=events, stored_bytes=_bytes(path), raw_bytes=rows,
        against="packed rows of fixed width", wanted_share=0.0594,
    )  # fmt: skip


def _tables(six: Path, folder: Path) -> list[str]:
    """Each event type as Parquet with the library's defaults, envelope included."""
    with el.open(six, read_only=True) as lab:
        for kind, declared in lab.store.types().items():
            frame = lab.events(kind, columns=[*_ALL, *(field.name for field in declared)])
            pq.write_table(frame.to_arrow(), folder / f"{kind}.parquet")
    return [str(path) for path in sorted(folder.glob("*.parquet"))]


@pytest.mark.parametrize("other", ["Parquet, library defaults", "length-delimited protobuf", "ArcticDB"])
def test_beside_others(benchmark: Any, six: Path, packed: tuple[int, int], tmp_path: Path, other: str) -> None:
    if not benchmark.enabled:
        pytest.skip("writes a million events in another form: only when measuring")

    def write() -> int:
        if other == "length-delimited protobuf":
            with el.open(six, read_only=True) as lab:
                return lab.export(tmp_path / "all.pb", progress=False).bytes
        tables = _tables(six, tmp_path)
        if other == "ArcticDB":
            return int(arctic.ask("room", str(tmp_path / "arctic"), *tables)[0])
        return sum(Path(table).stat().st_size for table in tables)

    taken = benchmark.pedantic(write, rounds=1)
    note(
        benchmark, row="room: six real Binance files in one store, all its files", events=packed[0],
        stored_bytes=_bytes(six), raw_bytes=taken, against=other,
    )  # fmt: skip
