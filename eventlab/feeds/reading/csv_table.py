"""CSV files as typed, checked frames. A fast columnar pass parses; a slow pass by line only locates an error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from eventlab.errors import FeedError
from eventlab.feeds.reading.text import TextFile

CellKind: TypeAlias = Literal["int", "amount", "flag", "text"]
TimeUnit: TypeAlias = Literal["s", "ms", "us", "ns"]

_DTYPES: dict[CellKind, pl.DataType] = {
    "int": pl.Int64(), "amount": pl.Float64(), "flag": pl.String(), "text": pl.String(),
}  # fmt: skip
_WANTED: dict[CellKind, str] = {
    "int": "an integer", "amount": "a finite number, not negative", "flag": "true or false", "text": "a word",
}  # fmt: skip
_TRUE, _FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")

NS_OF: dict[TimeUnit, int] = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
FIRST_S, STOP_S = 1_230_768_000, 4_102_444_800
"""Plausible times: from 2009-01-01, before any supported exchange, to 2100-01-01."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a CSV layout: its name, its aliases in headers, and the kind of its cells."""

    name: str
    kind: CellKind
    also: tuple[str, ...] = ()
    nullable: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive data rows as a frame. `first_row` is the 1-based number of its first row in the file."""

    frame: pl.DataFrame
    first_row: int
    done: int
    file: str

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """The 1-based number of each row in the file."""
        return np.arange(self.first_row, self.first_row + len(self.frame), dtype=np.int64)

    def refuse(
        self, bad: pl.Series | npt.NDArray[np.bool_], column: str, what: str, expected: object, hint: str | None = None
    ) -> None:
        """Raise FeedError for the first row flagged in `bad`, if any."""
        flags = bad.fill_null(value=False).to_numpy() if isinstance(bad, pl.Series) else bad
        if flags.any():
            row = int(np.flatnonzero(flags)[0])
            refuse_cell(self.file, self.first_row + row, column, what, self.frame[column][row], expected, hint)


def refuse_cell(
    file: str, row: int, column: str, what: str, got: object, expected: object, hint: str | None = None
) -> NoReturn:
    """Raise FeedError for one cell."""
    raise FeedError(
        f"{file}, row {row}, column {column!r}: {what}", got="null" if got is None else got, expected=expected,
        hint=hint or "Correct or remove the row, or download the file again.",
    )  # fmt: skip


class CsvTable:
    """A CSV file of a known layout.

    Parameters
    ----------
    source : TextFile
    layout : sequence of Column
        In the order of a file without header; optional columns last.
    headless : bool
        Whether the header line is optional.
    """

    def __init__(self, source: TextFile, layout: Sequence[Column], *, headless: bool) -> None:
        self.source, self._layout, self._headless = source, tuple(layout), headless

    def pieces(self) -> Iterator[Piece]:
        """Frames with the layout's column names; optional columns only if the file has them.

        Raises
        ------
        FeedError
            A wrong header or cell, with file, row, column and value.
        """
        columns: tuple[Column, ...] | None = None
        row = 1
        for block in self.source.blocks():
            data = block.data
            if columns is None:
                head, _, tail = data.partition(b"\n")
                cells = head.decode().rstrip("\r").split(",")
                columns, is_header = self._columns_of(cells)
                data = tail if is_header else data
            if data.endswith((b"\n\n", b"\n\r\n", b"\r\n")) or len(data) < 3:
                data = data.rstrip(b"\r\n")  # blank lines at the end of a file are common
            if not data:
                continue
            frame = self._parse(data, columns, row)
            yield Piece(frame, row, block.done, self.source.name)
            row += len(frame)

    def _columns_of(self, cells: list[str]) -> tuple[tuple[Column, ...], bool]:
        if self._headless and _is_number(cells[0]):
            if not sum(not column.optional for column in self._layout) <= len(cells) <= len(self._layout):
                self._refuse_header(f"{len(cells)} columns and no header", cells)
            return self._layout[: len(cells)], False
        by_name = {name: column for column in self._layout for name in (column.name, *column.also)}
        found: list[Column] = []
        for cell in cells:
            name = cell.strip().strip('"').lower()
            column = by_name.get(name)
            if column is None:
                self._refuse_header(f"unknown column {cell!r}", cells)
            if column in found:
                self._refuse_header(f"column {cell!r} appears twice", cells)
            found.append(column)
        for column in self._layout:
            if column not in found and not column.optional:
                self._refuse_header(f"column {column.name!r} is missing", cells)
        return tuple(found), True

    def _refuse_header(self, what: str, cells: list[str]) -> NoReturn:
        shown = ",".join(f"[{column.name}]" if column.optional else column.name for column in self._layout)
        raise FeedError(
            f"{self.source.name}, first line: {what}", got=",".join(cells), expected=shown,
            hint="Is this the right feed for the file? For other layouts use el.feeds.bars or lab.append_frame.",
        )  # fmt: skip

    def _parse(self, data: bytes, columns: tuple[Column, ...], row: int) -> pl.DataFrame:
        schema = {column.name: _DTYPES[column.kind] for column in columns}
        try:
            frame = pl.read_csv(data, has_header=False, schema=schema, quote_char=None)
        except pl.exceptions.PolarsError as error:
            self._diagnose(data, columns, row, str(error))
        # Polars fills a short line with nulls; if the last column has nulls, counting commas finds short lines.
        short = frame[columns[-1].name].null_count() and data.count(b",") != len(frame) * (len(columns) - 1)
        checked = None if short else self._checked(frame, columns)
        if checked is None:
            self._diagnose(data, columns, row, "invalid cells")
        return checked

    @staticmethod
    def _checked(frame: pl.DataFrame, columns: tuple[Column, ...]) -> pl.DataFrame | None:
        """The frame with flags as booleans, or None if a cell is invalid."""
        flags: list[pl.Series] = []
        for column in columns:
            series = frame[column.name]
            if series.null_count() and not column.nullable:
                return None
            if column.kind == "amount" and series.count():
                low, high = series.min(), series.max()
                # min and max skip NaN.
                if series.is_nan().any() or not 0 <= float(low) <= float(high) < np.inf:  # type: ignore[arg-type]
                    return None
            elif column.kind == "flag":
                true = series.is_in(_TRUE)
                if not (true | series.is_in(_FALSE)).all():
                    return None
                flags.append(true)
        return frame.with_columns(flags) if flags else frame

    def _diagnose(self, data: bytes, columns: tuple[Column, ...], row: int, otherwise: str) -> NoReturn:
        for index, line in enumerate(data.split(b"\n")):
            cells = line.decode().rstrip("\r").split(",")
            if len(cells) != len(columns):
                raise FeedError(
                    f"{self.source.name}, row {row + index}: {len(cells)} cells", got=",".join(cells),
                    expected=f"{len(columns)}: {','.join(column.name for column in columns)}",
                    hint="A short last row means a truncated file: download it again.",
                )  # fmt: skip
            for column, cell in zip(columns, cells, strict=True):
                if not _cell_fits(column, cell):
                    what = "empty cell" if cell == "" else "cannot be read"
                    refuse_cell(self.source.name, row + index, column.name, what, cell, _WANTED[column.kind])
        raise FeedError(f"{self.source.name}, rows from {row}: cannot be read", got=otherwise)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _cell_fits(column: Column, cell: str) -> bool:
    if cell == "":
        return column.nullable
    try:
        if column.kind == "int":
            return -(2**63) < int(cell) < 2**63 and "_" not in cell
        if column.kind == "amount":
            return 0 <= float(cell) < np.inf and "_" not in cell
    except ValueError:
        return False
    return column.kind == "text" or cell in (*_TRUE, *_FALSE)


class TimeColumn:
    """An integer time column. The magnitude of the first value decides the unit of the whole file.

    From 2009 to 2099 the ranges of s, ms, µs and ns do not overlap. A value outside all ranges, or in another unit than
    the first one, raises FeedError.
    """

    def __init__(self, column: str, units: Sequence[TimeUnit]) -> None:
        self._column, self._units = column, tuple(units)
        self.unit: TimeUnit | None = None
        """The file's unit; None before the first value."""

    @property
    def step(self) -> int:
        """One unit in nanoseconds."""
        return NS_OF[self.unit] if self.unit else 0

    @property
    def bounds(self) -> tuple[int, int]:
        """The lowest and highest plausible value in the file's unit, or over all units while it is unknown."""
        lowest, highest = zip(*map(_plausible, [self.unit] if self.unit else self._units), strict=True)
        return min(lowest), max(highest)

    def ns(self, piece: Piece) -> pl.Series:
        """The column in int64 nanoseconds; nulls stay null."""
        series = piece.frame[self._column]
        present = series.drop_nulls()
        if not len(present):
            return series
        if self.unit is None:
            self.unit = self._unit_of(present[0])
        unit = self.unit
        if unit is None or self._unit_of(present.min()) != unit or self._unit_of(present.max()) != unit:
            self._refuse(piece, series)
        return series * NS_OF[unit]

    def _unit_of(self, value: Any) -> TimeUnit | None:
        return next((unit for unit in self._units if _plausible(unit)[0] <= value <= _plausible(unit)[1]), None)

    def _refuse(self, piece: Piece, series: pl.Series) -> NoReturn:
        unit = self.unit or self._units[0]
        bad = ~series.is_between(*_plausible(unit))
        row = int(np.flatnonzero(bad.fill_null(value=False).to_numpy())[0])
        other = self._unit_of(series[row])
        what = "not a plausible time" if other is None else f"a time in {other} among times in {unit}"
        refuse_cell(
            piece.file, piece.first_row + row, self._column, what, series[row],
            f"{' or '.join(self._units)} since the epoch, one unit for the whole file, 2009 to 2099",
        )  # fmt: skip


def _plausible(unit: TimeUnit) -> tuple[int, int]:
    """The lowest and highest plausible value in a unit."""
    scale = 1_000_000_000 // NS_OF[unit]
    return FIRST_S * scale, STOP_S * scale - 1
