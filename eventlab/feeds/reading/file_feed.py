"""The base of feeds over one file: identity, running report, and detection of gaps in ids."""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import polars as pl

from eventlab.errors import FeedError, SequenceGap
from eventlab.events.aggregate_ids import Template
from eventlab.feeds.api import Chunk, Clock, FeedBatch, FeedReport, Gap, Param
from eventlab.feeds.reading.text import TextFile

SHOWN_GAPS = 5
UTC_NS = pl.Datetime("ns", "UTC")


class Tally:
    """Counts of the current pass, which become its FeedReport."""

    def __init__(self) -> None:
        self.rows = self.events = self.gaps = 0
        self.of_symbol = 0
        self.dropped: dict[str, int] = {}
        self.first_gaps: list[Gap] = []
        self.warnings: list[str] = []

    def drop(self, reason: str, count: int) -> None:
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def gap(self, broken: npt.NDArray[np.intp], rows: IntArray, previous: IntArray, ids: IntArray, symbol: str) -> None:
        """Record gaps at the indices `broken`."""
        self.gaps += len(broken)
        for index in broken[: SHOWN_GAPS - len(self.first_gaps)]:
            self.first_gaps.append(Gap(int(rows[index]), int(previous[index]), int(ids[index]), symbol))

    def report(self) -> FeedReport:
        return FeedReport(
            self.rows, self.events, MappingProxyType(dict(self.dropped)), self.gaps,
            tuple(self.first_gaps), tuple(self.warnings),
        )  # fmt: skip


IntArray = npt.NDArray[np.int64]


class GapDetector:
    """Finds gaps in ids that should rise by one per symbol, also across pieces of a file."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._last: dict[str, int] = {}

    def see(self, symbol: str, ids: IntArray, rows: IntArray) -> None:
        """Record gaps in `ids`, including the step from the last call."""
        if not len(ids):
            return
        previous = np.empty_like(ids)
        previous[0] = self._last.get(symbol, ids[0] - 1)
        previous[1:] = ids[:-1]
        broken = np.flatnonzero(ids != previous + 1)
        self._tally.gap(broken, rows, previous, ids, symbol)
        self._last[symbol] = int(ids[-1])


def symbol_rows(symbols: pl.Series) -> Iterator[tuple[str, npt.NDArray[np.intp]]]:
    """Each symbol, in order of first appearance, and the indices of its rows."""
    if not len(symbols):
        return
    if symbols.n_unique() == 1:
        yield str(symbols[0]), np.arange(len(symbols))
        return
    groups = pl.DataFrame({"symbol": symbols}).with_row_index("row").group_by("symbol", maintain_order=True)
    for (symbol,), group in groups:
        yield str(symbol), group["row"].to_numpy().astype(np.intp)


class FileFeed(ABC):
    """A feed over one file. Subclasses read the file; this class has identity, report and warnings.

    Parameters
    ----------
    symbol : str, optional
        The symbol of the file, or the only one wanted.
    params : str, int, float, bool or None
        Further parameters of its identity.
    """

    unit = "B"

    def __init__(
        self, name: str, path: str | os.PathLike[str], symbol: str | None, template: Template, **params: Param
    ) -> None:
        self.name, self._template = name, template.text
        self._symbol = None if symbol is None else checked_symbol(symbol)
        self.params: Mapping[str, Param] = MappingProxyType({
            "symbol": symbol, **params, "aggregate_id": template.text
        })  # fmt: skip
        self._file = TextFile(path)
        self._tally = Tally()

    def __repr__(self) -> str:
        return f"<feed {self.name} of {self._file.name!r}>"

    @property
    def clock(self) -> Clock:
        return "exchange"

    @property
    def source(self) -> str:
        return self._file.path.name

    @property
    def content_sha256(self) -> str:
        return self._file.digest()

    @property
    def total(self) -> int | None:
        return self._file.size

    @property
    def report(self) -> FeedReport:
        return self._tally.report()

    def chunks(self) -> Iterator[Chunk]:
        """See :class:`eventlab.feeds.api.Feed`."""
        self._tally = tally = Tally()
        for chunk in self._read(tally):
            tally.events += sum(len(batch.frame) for batch in chunk.batches)
            yield chunk
        if not tally.of_symbol and "other symbols" in tally.dropped:  # more likely a typo than a quiet market
            raise FeedError(
                f"{self._file.name} has no rows of the symbol", got=self._symbol, hint="Omit symbol to read all."
            )
        if tally.gaps:
            first = tally.first_gaps[0]
            warnings.warn(
                SequenceGap(
                    f"{self.source}: {tally.gaps} gap(s) in the ids; the first at row {first.row}, symbol "
                    f"{first.symbol}: {first.next_id} after {first.previous_id}"
                ),
                stacklevel=2,
            )

    @abstractmethod
    def _read(self, tally: Tally) -> Iterator[Chunk]:
        """Yields chunks, and counts rows and gaps in the tally."""

    def only_symbol(self, frame: pl.DataFrame, tally: Tally) -> pl.DataFrame:
        """The rows of the wanted symbol; counts the others as dropped."""
        if self._symbol is None:
            return frame
        rows = frame.filter(pl.col("symbol") == self._symbol)
        tally.of_symbol += len(rows)
        tally.drop("other symbols", len(frame) - len(rows))
        return rows


def checked_symbol(symbol: object) -> str:
    """The `symbol` argument. Raises FeedError unless it is a non-empty string."""
    if not isinstance(symbol, str) or not symbol:
        raise FeedError("symbol must be a non-empty string", got=symbol, expected="e.g. 'BTCUSDT'")
    return symbol


def non_empty(*batches: FeedBatch) -> tuple[FeedBatch, ...]:
    """The batches that have events."""
    return tuple(batch for batch in batches if len(batch.frame))


def as_time(series: pl.Series, name: str) -> pl.Series:
    """Int64 nanoseconds as a Datetime column, without a copy."""
    return series.cast(UTC_NS).alias(name)


def flags_as_enum(flags: pl.Series, true: str, false: str, vocabulary: Sequence[str]) -> pl.Series:
    """A boolean column as an enum with the words `true` and `false`."""
    enum = pl.Enum(list(vocabulary))
    picked = pl.when(pl.lit(flags)).then(pl.lit(true, enum)).otherwise(pl.lit(false, enum))
    return pl.select(picked).to_series()
