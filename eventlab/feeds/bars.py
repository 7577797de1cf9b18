"""Bars from any CSV or Parquet file; the caller names the columns."""

from __future__ import annotations

import csv
import datetime as dt
import os
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from eventlab.errors import FeedError
from eventlab.events.aggregate_ids import Template
from eventlab.events.builtin import Bar
from eventlab.events.clock import MAX_NS, duration_ns
from eventlab.events.types import event_type
from eventlab.feeds.api import Chunk, FeedBatch
from eventlab.feeds.reading.csv_table import NS_OF, Piece, TimeColumn, TimeUnit
from eventlab.feeds.reading.file_feed import UTC_NS, FileFeed, Tally, checked_symbol, non_empty

_PRICES = ("open", "high", "low", "close", "volume")
_PARQUET_ROWS = 1 << 18
_FORMATS = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f")
_ZONED_FORMATS = ("%Y-%m-%d %H:%M%z", "%Y-%m-%d %H:%M:%S%.f%z")
_FIRST_YEAR, _LAST_YEAR = 1678, 2261  # full years within int64 nanoseconds
_RANGE = f"from {_FIRST_YEAR} to {_LAST_YEAR}"


def bars(
    path: str | os.PathLike[str],
    symbol: str,
    *,
    time: str = "time",
    open: str = "open",  # noqa: A002 - the field's name
    high: str = "high",
    low: str = "low",
    close: str = "close",
    volume: str = "volume",
    time_unit: TimeUnit | None = None,
    interval: str | dt.timedelta | None = None,
    stamped: Literal["end", "start"] = "end",
    aggregate_id: str = "bar/{symbol}",
) -> FileFeed:
    r"""Bars from a CSV or Parquet file.

    Parameters
    ----------
    path : path
        CSV with header, plain, gzip or zip, or Parquet; the content decides.
    symbol : str
        The file does not have it.
    time, open, high, low, close, volume : str
        The file's names of these columns; ``""`` for a first column without a name. Times are dates, ISO date-times
        (UTC without an offset), or numbers since the epoch.
    time_unit : {"s", "ms", "us", "ns"}, optional
        Unit of numeric times; by default the magnitude decides, for times from 2009 to 2099.
    interval : str or timedelta, optional
        The length of a bar, e.g. ``"1m"``; required with ``stamped="start"``.
    stamped : {"end", "start"}
        Whether the file's times are the end or the start of a bar. The event's time is always the end, because a bar is
        known only then.
    aggregate_id : str
        A template over ``{symbol}``.

    Returns
    -------
    Feed
        Drops and counts rows in which all five numbers are missing.

    Raises
    ------
    FeedError
        At once for a missing file or an invalid argument; while reading, for invalid content.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "daily.csv"
    >>> _ = file.write_text(",o,h,l,c,v\n2020-01-16,8809.17,8852.35,8573.91,8710.15,6713.26\n")
    >>> feed = bars(file, "BTCUSD", time="", open="o", high="h", low="l", close="c", volume="v",
    ...             interval="1d", stamped="start")
    >>> next(feed.chunks()).batches[0].frame["timestamp"].item()
    datetime.datetime(2020, 1, 17, 0, 0, tzinfo=zoneinfo.ZoneInfo(key='UTC'))
    """
    names = {"time": time, "open": open, "high": high, "low": low, "close": close, "volume": volume}
    for what, name in names.items():
        if not isinstance(name, str):
            raise FeedError(f"{what} must be a column's name", got=name)
    if time_unit is not None and time_unit not in NS_OF:
        raise FeedError("unknown time_unit", got=time_unit, expected="s | ms | us | ns, or None")
    if stamped not in ("end", "start"):
        raise FeedError("unknown value for stamped", got=stamped, expected="end | start")
    if stamped == "start" and interval is None:
        raise FeedError("stamped='start' needs an interval", hint="Pass interval, e.g. interval='1m'.")
    length = None if interval is None else duration_ns(interval, what="interval")
    return _BarFeed(path, checked_symbol(symbol), names, time_unit, length, stamped, aggregate_id)


class _BarFeed(FileFeed):
    def __init__(
        self, path: str | os.PathLike[str], symbol: str, names: Mapping[str, str], time_unit: TimeUnit | None,
        interval: int | None, stamped: str, aggregate_id: str,
    ) -> None:  # fmt: skip
        self._names = dict(names)
        self._units: tuple[TimeUnit, ...] = ("s", "ms", "us", "ns") if time_unit is None else (time_unit,)
        self._shift = interval if stamped == "start" and interval is not None else 0
        super().__init__(
            "bars", path, symbol, Template.parse(aggregate_id), **names, time_unit=time_unit, interval=interval,
            stamped=stamped,
        )  # fmt: skip

    def _read(self, tally: Tally) -> Iterator[Chunk]:
        epochs = TimeColumn("time", self._units)
        for piece in self._parquet() if self._is_parquet() else self._csv():
            tally.rows += len(piece.frame)
            frame = self._events(piece, epochs, tally)
            yield Chunk(non_empty(FeedBatch(event_type(Bar), frame, self._template)), piece.done)

    def _is_parquet(self) -> bool:
        try:
            with self._file.path.open("rb") as raw:
                return raw.read(4) == b"PAR1"
        except OSError as error:
            raise FeedError(f"{self._file.name} cannot be read", got=str(error)) from error

    def _csv(self) -> Iterator[Piece]:
        header: list[str] | None = None
        row = 1
        for block in self._file.blocks():
            data = block.data
            if header is None:
                head, _, data = data.partition(b"\n")
                header = next(csv.reader([head.decode().rstrip("\r")]), [])
                self._check_names(header)
            schema = {str(at): pl.String() for at in range(len(header))}
            if not data.strip():
                continue
            try:
                frame = pl.read_csv(data.rstrip(b"\r\n"), has_header=False, schema=schema)
            except pl.exceptions.PolarsError as error:
                raise FeedError(
                    f"{self._file.name}, rows from {row}: cannot be read as CSV", got=str(error).partition("\n")[0],
                    expected=f"{len(header)} cells a row",
                ) from error  # fmt: skip
            picked = {ours: frame[str(header.index(theirs))].alias(ours) for ours, theirs in self._names.items()}
            yield Piece(pl.DataFrame(list(picked.values())), row, block.done, self._file.name)
            row += len(frame)

    def _parquet(self) -> Iterator[Piece]:
        try:
            with pq.ParquetFile(self._file.path) as source:
                self._check_names(source.schema_arrow.names)
                theirs = list(dict.fromkeys(self._names.values()))
                row, rows = 1, max(source.metadata.num_rows, 1)
                for batch in source.iter_batches(_PARQUET_ROWS, columns=theirs):
                    frame = pl.DataFrame([
                        pl.Series(ours, pl.from_arrow(batch.column(name))) for ours, name in self._names.items()
                    ])  # fmt: skip
                    done = self._file.size * (row - 1 + len(frame)) // rows
                    yield Piece(frame, row, done, self._file.name)
                    row += len(frame)
        except (pa.ArrowException, OSError) as error:
            raise FeedError(
                f"{self._file.name} cannot be read as Parquet", got=str(error), hint="Download or write it again."
            ) from error

    def _check_names(self, header: list[str]) -> None:
        for ours, theirs in self._names.items():
            if theirs not in header:
                raise FeedError(
                    f"{self._file.name} has no column {theirs!r}", got=", ".join(map(repr, header)),
                    hint=f"Name the right one, e.g. {ours}={(header or ['...'])[0]!r}.",
                )  # fmt: skip
            if header.count(theirs) > 1:
                raise FeedError(f"{self._file.name} has {header.count(theirs)} columns {theirs!r}", expected="one")

    def _events(self, piece: Piece, epochs: TimeColumn, tally: Tally) -> pl.DataFrame:
        raw = piece.frame
        numbers = [self._numbers(piece, name) for name in _PRICES]
        absent = np.logical_and.reduce([series.is_null().to_numpy() for series in numbers])
        for name, series in zip(_PRICES, numbers, strict=True):
            missing = series.is_null().to_numpy() & ~absent
            piece.refuse(missing, name, "missing in a row with other numbers", "all five numbers, or none")
        tally.drop("rows without numbers", int(absent.sum()))
        present = pl.Series(~absent)
        piece.refuse(raw["time"].is_null() & present, "time", "missing", "a time")
        time = self._times(piece.frame["time"], piece, epochs)
        piece.refuse(time > MAX_NS - self._shift, "time", "the bar ends too late", "a bar that ends before 2262-04-11")
        frame = pl.DataFrame([pl.repeat(self._symbol, len(raw), eager=True).alias("symbol"), *numbers])
        frame = frame.with_columns((time + self._shift).cast(UTC_NS).alias("timestamp")).filter(present)
        top, bottom = pl.max_horizontal("open", "close", "low"), pl.min_horizontal("open", "close", "high")
        odd = frame.select(((pl.col("high") < top) | (pl.col("low") > bottom)).sum())
        if odd.item():
            tally.warnings.append(f"{odd.item()} bars have open or close outside low and high")
        return frame

    @staticmethod
    def _numbers(piece: Piece, name: str) -> pl.Series:
        series = piece.frame[name]
        if series.dtype == pl.String:
            series = series.str.strip_chars().replace("", None)
        elif not (series.dtype.is_numeric() or series.dtype.is_decimal() or series.dtype == pl.Null):
            piece.refuse(np.ones(len(series), bool), name, f"column of type {series.dtype}", "a column of numbers")
        values = series.cast(pl.Float64, strict=False)
        unread = (values.is_null() & series.is_not_null()) | ~(values.is_finite() & (values >= 0))
        piece.refuse(unread, name, "cannot be read", "a finite number, not negative")
        return values.alias(name)

    def _times(self, series: pl.Series, piece: Piece, epochs: TimeColumn) -> pl.Series:
        if isinstance(series.dtype, (pl.Datetime, pl.Date)):
            zoned = series.cast(pl.Datetime("ns", getattr(series.dtype, "time_zone", None)), strict=False)
            piece.refuse(zoned.is_null() & series.is_not_null(), "time", "out of range", _RANGE)
            return zoned.to_physical()
        numbers = series.cast(pl.Int64, strict=False) if series.dtype.is_integer() else _integers(series)
        if numbers.count() == series.count():
            return epochs.ns(Piece(pl.DataFrame({"time": numbers}), piece.first_row, piece.done, piece.file))
        moments = (
            _moments(series) if series.dtype == pl.String else pl.repeat(None, len(series), dtype=pl.Int64, eager=True)
        )
        piece.refuse(
            moments.is_null() & series.is_not_null(), "time", "cannot be read",
            f"an ISO date or date-time, {_RANGE}, or an integer since the epoch", "Convert the column first.",
        )  # fmt: skip
        return moments


def _integers(series: pl.Series) -> pl.Series:
    """Integers, also if written as floats (1614556800.0); null for other cells."""
    if series.dtype == pl.String:
        return series.str.strip_chars().str.replace(r"\.0*$", "").cast(pl.Int64, strict=False)
    values = series.cast(pl.Float64, strict=False)
    integral = (values == values.floor()) & (values.abs() < 2**53)
    return values.set(~integral.fill_null(value=False), None).cast(pl.Int64)


def _moments(series: pl.Series) -> pl.Series:
    """ISO dates and date-times in int64 ns; null for other cells and out of range."""
    text = series.str.strip_chars().str.replace(r"^(\d{4}-\d{2}-\d{2})T", "$1 ").str.replace(r"\s*(Z|UTC)$", "+0000")
    zoned = text.str.replace(r"([+-]\d{2}):(\d{2})$", "$1$2")
    has_zone = zoned.str.contains(r":.*[+-]\d{4}$")
    # Polars overflows silently on years outside the range of nanoseconds.
    inside = text.str.slice(0, 4).cast(pl.Int32, strict=False).is_between(_FIRST_YEAR, _LAST_YEAR)
    plain, aware = _parsed(text, _FORMATS, None), _parsed(zoned, _ZONED_FORMATS, "UTC")
    return plain.zip_with(~has_zone.fill_null(value=False), aware).set(~inside.fill_null(value=False), None)


def _parsed(text: pl.Series, formats: tuple[str, ...], zone: str | None) -> pl.Series:
    times = (pl.col("text").str.to_datetime(f, time_unit="ns", time_zone=zone, strict=False) for f in formats)
    return pl.DataFrame({"text": text}).select(pl.coalesce(times)).to_series().to_physical()
