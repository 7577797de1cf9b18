"""Raw websocket captures: lines of a capture time and a JSON message, decoded by column."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import NoReturn

import polars as pl

from eventlab.errors import FeedError
from eventlab.events.aggregate_ids import Template
from eventlab.events.types import event_type
from eventlab.feeds.api import Clock, FeedBatch
from eventlab.feeds.reading.csv_table import refuse_cell
from eventlab.feeds.reading.file_feed import FileFeed, Tally

_SEPARATOR = "\x01"  # JSON escapes control characters, so this never occurs in a line


class CaptureFeed(FileFeed):
    """A feed over a capture of several event types. Row numbers are line numbers, from 1."""

    def __init__(self, name: str, path: str | os.PathLike[str], symbol: str | None, aggregate_id: str) -> None:
        template = Template.parse(aggregate_id, ("symbol", "kind"))
        if "kind" not in template.fields:  # clocks differ between event types, so each needs its own aggregate
            raise FeedError(
                f"aggregate_id {aggregate_id!r} has trades, quotes and books in one aggregate", expected="{kind} in it"
            )
        super().__init__(name, path, symbol, template)

    def batch(self, of: type, kind: str, frame: pl.DataFrame, clock: Clock | None) -> FeedBatch:
        """Events of one type from their columns and `row`, their line numbers."""
        template = self._template.replace("{kind}", kind)
        return FeedBatch(event_type(of), frame.drop("row"), template, frame["row"].to_numpy(), clock)

    def _lines(self, tally: Tally) -> Iterator[tuple[pl.DataFrame, int]]:
        """Frames of `row` and `line`, without blank lines."""
        row = 1
        for block in self._file.blocks():
            try:
                frame = pl.read_csv(
                    block.data, has_header=False, quote_char=None, separator=_SEPARATOR, schema={"line": pl.String()}
                )
            except pl.exceptions.PolarsError as error:
                raise FeedError(
                    f"{self._file.name}, lines from {row}: not a text capture", got=str(error).partition("\n")[0]
                ) from error
            numbered = frame.select(pl.int_range(row, row + len(frame), dtype=pl.Int64).alias("row"), "line")
            row += len(frame)
            tally.rows += len(frame)
            yield numbered.filter(pl.col("line").is_not_null()), block.done

    def refuse(self, frame: pl.DataFrame, bad: pl.Expr, column: str, what: str, expected: object) -> None:
        """Raise FeedError for the first row where `bad` holds; shows `column`."""
        found = frame.filter(bad).head(1)
        if len(found):
            refuse_cell(self._file.name, int(found["row"][0]), column, what, found[column][0], expected)

    def decode(self, frame: pl.DataFrame, shape: pl.Struct, what: str) -> pl.DataFrame:
        """`row`, `received_at` and the fields of each message's JSON text in column `text`.

        Raises
        ------
        FeedError
            Text that is not complete JSON of this shape.
        """
        try:
            decoded = frame["text"].str.json_decode(shape)
        except pl.exceptions.PolarsError as error:
            self._diagnose(frame, shape, what, str(error).partition("\n")[0])
        return frame.select("row", "received_at", decoded.alias("message")).unnest("message")

    def _diagnose(self, frame: pl.DataFrame, shape: pl.Struct, what: str, otherwise: str) -> NoReturn:
        for row, text in frame.select("row", "text").iter_rows():
            try:
                json.loads(text)
                pl.Series([text]).str.json_decode(shape)
            except (ValueError, pl.exceptions.PolarsError):
                raise FeedError(
                    f"{self._file.name}, line {row}: incomplete or invalid {what} message", got=text,
                    expected="JSON", hint="An incomplete last line means an interrupted capture: remove it.",
                ) from None  # fmt: skip
        raise FeedError(f"{self._file.name}: {what} messages cannot be read", got=otherwise)

    def required(self, frame: pl.DataFrame, *columns: str) -> None:
        """Raise FeedError for the first message without one of the fields."""
        for column in columns:
            self.refuse(frame, pl.col(column).is_null(), column, "missing or of the wrong type", "a value")

    def amounts(self, frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
        """Text columns as finite, non-negative numbers."""
        for column in columns:
            value = pl.col(column).cast(pl.Float64, strict=False)
            valid = (value.is_finite() & (value >= 0)).fill_null(value=False)
            self.refuse(frame, ~valid, column, "cannot be read", "a finite number, not negative")
        return frame.with_columns(pl.col(*columns).cast(pl.Float64))

    def check_sides(self, frame: pl.DataFrame) -> None:
        """Raise FeedError for the first row whose `side` is neither buy nor sell."""
        bad = ~pl.col("side").is_in(["buy", "sell"]).fill_null(value=False)
        self.refuse(frame, bad, "side", "unknown side", "buy | sell")

    @staticmethod
    def count_other_kinds(messages: pl.DataFrame, known: Sequence[str], tally: Tally) -> pl.DataFrame:
        """The messages whose `kind` the feed ignores; counts them as dropped."""
        others = messages.filter(~pl.col("kind").is_in(known).fill_null(value=False))
        for kind, count in others.group_by("kind", maintain_order=True).len().iter_rows():
            tally.drop(f"messages of kind {kind}" if kind else "messages of unknown kind", count)
        return others


def levels(frame: pl.DataFrame, sides: dict[str, str], columns: list[str]) -> pl.DataFrame:
    """One row per price level, by message: the given columns, then `side`, `price` and `size` (text).

    `sides` maps columns of ``[[price, size], ...]`` to book sides, in their order within a message.
    """
    parts = [
        split_cells(frame, columns, column, ("price", "size")).with_columns(side=pl.lit(side, pl.Enum(["bid", "ask"])))
        for column, side in sides.items()
    ]
    return pl.concat(parts).sort("row", maintain_order=True).select(*columns, "side", "price", "size")


def split_cells(frame: pl.DataFrame, columns: Sequence[str], column: str, cells: Sequence[str]) -> pl.DataFrame:
    """One row per list in a column of lists of lists: the given columns, then the list's cells."""
    rows = frame.select(*columns, column).explode(column, empty_as_null=False, keep_nulls=False)
    split = {name: pl.col(column).list.get(at, null_on_oob=True) for at, name in enumerate(cells)}
    return rows.with_columns(**split).drop(column)
