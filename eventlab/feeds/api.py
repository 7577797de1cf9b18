"""The protocol of feeds, and what they yield to `lab.ingest`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from eventlab.events.types import EventType

Clock: TypeAlias = Literal["exchange", "capture", "simulated"]
"""The clock of event times: the exchange's, the capturing machine's, or a simulation's."""

Param: TypeAlias = "str | int | float | bool | None"


@dataclass(frozen=True, slots=True, eq=False)
class FeedBatch:
    """Events of one type.

    Attributes
    ----------
    type : EventType
    frame : polars.DataFrame
        Payload columns of the type (fields with a default may be absent), `timestamp` (Datetime ns UTC or int64 ns),
        and `aggregate_id` (text) if the attribute `aggregate_id` is None. Optional: `event_id` and `metadata` (JSON).
    aggregate_id : str or None
        A template over ``{symbol}``, filled with the frame's column `symbol`.
    order : int64 array or None
        Ascending row numbers in the source, which interleave the batches of a chunk as captured; None if the chunk has
        one batch.
    clock : str or None
        The clock of this batch's `timestamp`, if it differs from the feed's.
    cause_row : int64 array or None
        For each event the index of its cause, counted from 0 over all events that the feed yields; negative for none.
    """

    type: EventType
    frame: pl.DataFrame
    aggregate_id: str | None
    order: npt.NDArray[np.int64] | None = None
    clock: Clock | None = None
    cause_row: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """The events of one atomic commit. `done` is how much of `Feed.total` has been read, including this chunk.

    A chunk without events, whose rows were all dropped, still counts as a chunk.
    """

    batches: tuple[FeedBatch, ...]
    done: int


@dataclass(frozen=True, slots=True)
class Gap:
    """A gap in ids that should be contiguous. `row` is the 1-based data row of `next_id`."""

    row: int
    previous_id: int
    next_id: int
    symbol: str


@dataclass(frozen=True, slots=True)
class FeedReport:
    """Counts of one pass over a source.

    Attributes
    ----------
    rows : int
        Data rows, lines or messages read.
    events : int
        Events yielded.
    dropped : mapping of str to int
        Dropped rows, by reason.
    gaps : int
        Gaps in trade or update ids, including ids that go back or repeat.
    first_gaps : tuple of Gap
        The first few gaps.
    warnings : tuple of str
        Other warnings about the source.
    """

    rows: int = 0
    events: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    gaps: int = 0
    first_gaps: tuple[Gap, ...] = ()
    warnings: tuple[str, ...] = ()


class Feed(Protocol):
    """A source of events that can be read several times, each time in the same chunks.

    `name`, `params` and `content_sha256` are its identity. Equal identities mean equal chunks, so an interrupted ingest
    resumes and a repeated one writes nothing.
    """

    @property
    def name(self) -> str:
        """The name of its function, e.g. ``"binance_trades"``."""

    @property
    def params(self) -> Mapping[str, Param]:
        """Everything besides the content that changes the events; not the path."""

    @property
    def clock(self) -> Clock | None:
        """The clock of `timestamp`, unless a batch has its own; None if unknown."""

    @property
    def source(self) -> str:
        """The source's name in progress bars and errors, e.g. a file name."""

    @property
    def content_sha256(self) -> str:
        """Hex digest of the source's raw bytes; computed at first use."""

    @property
    def total(self) -> int | None:
        """The final value of `Chunk.done`, in `unit`; None if unknown."""

    @property
    def unit(self) -> str:
        """``"B"`` for file bytes, ``"event"`` for events."""

    @property
    def report(self) -> FeedReport:
        """Counts of the last pass; final once `chunks` is exhausted."""

    def chunks(self) -> Iterator[Chunk]:
        """Chunks of bounded size in source order. Raises FeedError before it yields any event of an invalid chunk.

        Warns with SequenceGap at the end of a pass that found gaps.
        """
