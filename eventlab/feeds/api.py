"""What a feed promises, and what `lab.ingest` may rely on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from eventlab.events.types import EventType

Clock: TypeAlias = Literal["exchange", "capture", "simulated"]
"""Whose clock event times are: the exchange's, the capturing machine's, or a generator's."""

Param: TypeAlias = "str | int | float | bool | None"


@dataclass(frozen=True, slots=True, eq=False)
class FeedBatch:
    """Events of one type.

    Attributes
    ----------
    type : EventType
    frame : polars.DataFrame
        Payload columns of the type (fields with a default may be absent), `timestamp` (Datetime ns UTC or int64 ns),
        and, where `aggregate_id` is None, `aggregate_id` (text). `event_id` and `metadata` (JSON) where there are any.
    aggregate_id : str or None
        A template over ``{symbol}``, filled from the frame's column `symbol` by
        :meth:`eventlab.events.aggregate_ids.Template.column`.
    order : int64 array or None
        Ascending row numbers in the source, to interleave the batches of a chunk as they were captured; None where the
        chunk has one batch.
    clock : str or None
        Whose clock this batch's `timestamp` is, where it is not the feed's.
    cause_row : int64 array or None
        The number, from 0, among all events of the source in the order yielded, of the event that caused each; negative
        for none.
    """

    type: EventType
    frame: pl.DataFrame
    aggregate_id: str | None
    order: npt.NDArray[np.int64] | None = None
    clock: Clock | None = None
    cause_row: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """What becomes one atomic commit. `done` is how much of `Feed.total` has been read so far, this chunk included.

    A chunk may have no events (all its rows were dropped); it keeps its number all the same.
    """

    batches: tuple[FeedBatch, ...]
    done: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Ids that should be contiguous and are not. `row` is the 1-based data row that has `next_id`."""

    row: int
    previous_id: int
    next_id: int
    symbol: str


@dataclass(frozen=True, slots=True)
class FeedReport:
    """What one pass over a source saw.

    Attributes
    ----------
    rows : int
        Data rows (or lines, or messages) read.
    events : int
        Events yielded.
    dropped : mapping of str to int
        Rows left out, by reason.
    gaps : int
        Breaks in trade or update ids, also those that go back or repeat.
    first_gaps : tuple of Gap
        The first few of them.
    warnings : tuple of str
        What else a reader should know.
    """

    rows: int = 0
    events: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    gaps: int = 0
    first_gaps: tuple[Gap, ...] = ()
    warnings: tuple[str, ...] = ()


class Feed(Protocol):
    """A source of events that can be read again and again, each time in the same chunks.

    `name`, `params` and `content_sha256` are its identity: equal identity, equal chunks, so that an interrupted ingest
    resumes and a repeated one writes nothing.
    """

    @property
    def name(self) -> str:
        """The function that made it, e.g. ``"binance_trades"``."""

    @property
    def params(self) -> Mapping[str, Param]:
        """Everything beside the content that changes what is yielded; not the path."""

    @property
    def clock(self) -> Clock | None:
        """Whose clock `timestamp` is, unless a batch says otherwise; None where the source does not tell."""

    @property
    def source(self) -> str:
        """The source in words, for progress bars and errors: a file name, or what a generator makes."""

    @property
    def content_sha256(self) -> str:
        """Hex digest of the source's raw bytes; computed at first use."""

    @property
    def total(self) -> int | None:
        """What `Chunk.done` runs up to, in `unit`s; None where unknown."""

    @property
    def unit(self) -> str:
        """``"B"`` for bytes of the file, ``"event"`` for generated events."""

    @property
    def report(self) -> FeedReport:
        """What the last pass has seen so far; final once `chunks` is exhausted."""

    def chunks(self) -> Iterator[Chunk]:
        """Bounded pieces in source order. Raises FeedError before yielding anything of a bad piece.

        Warns with SequenceGap once, at the end of a pass that found gaps.
        """
