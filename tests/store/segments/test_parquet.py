"""A store's Parquet files, opened as they lie by programs that know nothing of eventlab, hold the right values."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings

import eventlab as el
from eventlab.events.types import EventType
from eventlab.interchange.pieces import columns_of
from tests.interchange.strategies import fill, steps

Rows = dict[int, dict[str, Any]]

DUCKDB_NS = f"""
    CASE "{{name}}" WHEN 'infinity' THEN {2**63 - 1} WHEN '-infinity' THEN {1 - 2**63} ELSE epoch_ns("{{name}}") END
    AS "{{name}}"
"""


def by_polars(path: Path) -> Rows:
    return _rows(pl.read_parquet(path))


def by_polars_lazily(path: Path) -> Rows:
    return _rows(pl.scan_parquet(path).filter(pl.col("position") >= 0).collect())


def by_duckdb(path: Path) -> Rows:
    """Times as their nanoseconds: DuckDB's own values of them have microseconds.

    To DuckDB, the largest int64 and its negative are no times but infinity and -infinity, which `epoch_ns` has no
    number for; they order and compare as what they are.
    """
    with duckdb.connect() as connection:
        described = connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
        asked = ", ".join(
            DUCKDB_NS.format(name=name) if kind.startswith("TIMESTAMP") else f'"{name}"' for name, kind, *_ in described
        )
        found = connection.execute(f"SELECT {asked} FROM read_parquet(?)", [str(path)]).fetchall()
    names = [name for name, *_ in described]
    return {row[names.index("position")]: dict(zip(names, row, strict=True)) for row in found}


def _rows(frame: pl.DataFrame) -> Rows:
    times = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    in_ns = frame.with_columns(pl.col(times).dt.cast_time_unit("ns").to_physical())  # a file may have coarser units
    return {row["position"]: row for row in in_ns.iter_rows(named=True)}


def _plain(value: Any) -> Any:
    """Floats as their digits, by which -0.0 differs from 0.0; a decimal as the float that it means."""
    if isinstance(value, Decimal):
        value = float(value)
    return repr(value) if isinstance(value, float) else value


def wanted(lab: el.Lab, declared: EventType) -> Rows:
    columns = [name for name in columns_of(declared) if name != "recorded_at"]
    frames = list(lab.store.rows(declared, columns=columns, computed_ids=False))
    return {position: row for frame in frames for position, row in _rows(frame).items()}


def segments(lab: el.Lab, path: Path) -> Iterator[tuple[EventType, Path]]:
    known = {field for declared in lab.store.types().values() for field in declared.polars_schema}
    files = sorted(path.rglob("*.parquet"))
    assert files
    assert known
    for file in files:
        named = {*pl.read_parquet_schema(file)}
        owners = [kind for kind in lab.store.types().values() if named <= {*columns_of(kind)}]
        position = pl.read_parquet(file, columns=["position"])["position"][0]
        yield next(kind for kind in owners if position in wanted(lab, kind)), file


@pytest.mark.parametrize("read", [by_polars, by_polars_lazily, by_duckdb], ids=lambda read: read.__name__)
@settings(max_examples=25)
@given(made=steps())
def test_every_value_is_that_of_the_lab(read: Callable[[Path], Rows], made):
    with tempfile.TemporaryDirectory() as folder, el.open(Path(folder) / "lab", durability="relaxed") as lab:
        fill(lab, made)
        lab.seal()
        seen = 0
        for declared, file in segments(lab, Path(folder)):
            expected, found = wanted(lab, declared), read(file)
            seen += len(found)
            for position, row in found.items():
                for name, value in expected[position].items():
                    # A column that is nowhere set is left out, and so are versions that the order implies.
                    assert name in row or value is None or name == "version", name
                    if name in row:
                        assert _plain(row[name]) == _plain(value), name
        assert seen == lab.store.stop_position


def test_prices_are_exact_decimals_and_times_have_a_zone(tmp_path):
    with el.open(tmp_path / "lab") as lab:
        prices = [61837.63, 0.1, 61837.64]
        lab.append_frame(
            el.MarketData,
            pl.DataFrame({
                "timestamp": [1_723_161_600_123_456_789] * 3, "symbol": "BTC", "price": prices, "volume": 0.02,
            }),
        )  # fmt: skip
        lab.seal()
    ((path,),) = [sorted((tmp_path / "lab").rglob("*.parquet"))]
    read = pl.read_parquet(path)
    assert isinstance(read.schema["price"], pl.Decimal)
    assert read["price"].to_list() == [Decimal("61837.63"), Decimal("0.10"), Decimal("61837.64")]
    assert read["timestamp"][0] == dt.datetime(2024, 8, 9, 0, 0, 0, 123456, tzinfo=dt.UTC)
    (total,) = duckdb.sql(f"SELECT sum(price) FROM read_parquet('{path}')").fetchall()[0]
    assert total == Decimal("123675.37")


def test_the_last_nanosecond_of_int64_is_a_time_and_duckdbs_infinity(tmp_path):
    with el.open(tmp_path / "lab") as lab:
        lab.append("market/BTC", el.MarketData("BTC", 1.0, 1.0, received_at=2**63 - 1), timestamp=2**63 - 2)
        lab.seal()
    ((path,),) = [sorted((tmp_path / "lab").rglob("*.parquet"))]
    for read in (by_polars, by_duckdb):
        (row,) = read(path).values()
        assert (row["timestamp"], row["received_at"]) == (2**63 - 2, 2**63 - 1)
