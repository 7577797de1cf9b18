"""Ingesting a feed: one commit a chunk, keyed by the source's identity, so that a rerun resumes or does nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from eventlab.errors import FeedError, InvalidEvent, LateEvent
from eventlab.events.frame import Int64Array
from eventlab.feeds.api import Chunk, Feed, FeedReport, Gap
from eventlab.feeds.exports import Exported
from eventlab.lab.append import batch_of_frame
from eventlab.runtime.progress import tqdm
from eventlab.store.api import Batch, Late, Store


@dataclass(frozen=True, slots=True)
class IngestReceipt:
    """What an ingest did.

    Attributes
    ----------
    source : str
        Identity: SHA-256 over the feed's name, parameters and content.
    count : int
        Events of the source in the store.
    added : int
        How many of them this call appended; fewer than `count` where an earlier one was interrupted.
    first_position, position : int or None
        Of the source's first and last event; None where it has none. Other events may lie between.
    already : bool
        The source was there as a whole; nothing was read.
    clamped : int
        Event times raised by ``late="clamp"``.
    report : FeedReport
        Rows, drops and gaps as the feed saw them.
    backdated : int
        Events kept behind later ones of their aggregate by ``late="accept"``.
    """

    source: str
    count: int
    added: int
    first_position: int | None
    position: int | None
    already: bool
    clamped: int
    report: FeedReport
    backdated: int = 0


def source_identity(feed: Feed) -> str:
    """Identity of a source, hexadecimal: SHA-256 over the feed's name, parameters and content."""
    text = json.dumps([feed.name, dict(feed.params), feed.content_sha256], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def ingest(store: Store, feed: Feed, *, late: Late = "reject", progress: bool = True) -> IngestReceipt:
    """See :meth:`eventlab.lab.lab.Lab.ingest`."""
    source = source_identity(feed)
    if isinstance(feed, Exported) and feed.store_id == store.store_id:
        raise FeedError(
            f"{feed.source}: these events are this lab's own",
            hint="Ingest them into another one; here they would all be there twice.",
        )
    kept = store.source_receipt(source)
    if kept is not None:
        return _from_json(kept)
    count = added = clamped = backdated = 0
    first: int | None = None
    last: int | None = None
    positions = _SourcePositions()
    chunks = _ahead(iter(feed.chunks()))
    bar = tqdm(
        total=feed.total,
        unit=feed.unit,
        unit_scale=True,
        unit_divisor=1024 if feed.unit == "B" else 1000,
        desc="".join(c if c.isprintable() else "?" for c in feed.source),  # a file's name is data, too
        disable=not progress,
        leave=None,
    )
    with closing(chunks), bar:
        for number, chunk in enumerate(chunks):
            receipt = store.chunk_receipt(source, number)
            if receipt is None:
                try:
                    batches = _batches(feed, chunk, count, positions)
                    receipt = store.commit(batches, late=late, source=(source, number))
                except InvalidEvent as error:
                    raise _located(error, feed.source, count) from None
                added += receipt.count
            if receipt.count:
                positions.add(count, receipt.first_position)
                first = receipt.first_position if first is None else first
                last = receipt.position
            count += receipt.count
            clamped += receipt.clamped
            backdated += receipt.backdated
            bar.update(chunk.done - bar.n)
    made = IngestReceipt(
        source, count, added, first, last, already=False, clamped=clamped, report=feed.report, backdated=backdated
    )
    store.finish_source(source, json.dumps(made, default=_plain, sort_keys=True))
    return made


def _located(error: InvalidEvent, source: str, before: int) -> InvalidEvent:
    """The error, naming the source, and the event by its number in it; `before` events came in earlier chunks."""
    what = error.what
    if isinstance(error, LateEvent) and error.row is not None:
        what = f"event {before + error.row + 1}: {what.removeprefix(f'row {error.row}: ')}"
    elif source in what:
        return error
    return type(error)(f"{source}: {what}", got=error.got, expected=error.expected, hint=error.hint)


def _ahead(chunks: Iterator[Chunk]) -> Generator[Chunk, None, None]:
    """The chunks, each read while the one before is committed."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = reader.submit(next, chunks, None)
            yield chunk


class _SourcePositions:
    """Positions of a source's events: of each chunk, its first event's number in the source, and its position."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._positions: list[int] = []

    def add(self, number: int, position: int) -> None:
        self._numbers.append(number)
        self._positions.append(position)

    def causes(self, cause_row: Int64Array, here: int) -> tuple[Int64Array, Int64Array]:
        """Causes as positions in the log, and as rows of the chunk that begins at `here`; negative for none."""
        inside = cause_row >= here
        rows = np.where(inside, cause_row - here, -1)
        if not self._numbers:
            return np.full(len(rows), -1, dtype=np.int64), rows
        chunk = np.searchsorted(self._numbers, cause_row, "right") - 1
        before = np.array(self._positions)[chunk] + cause_row - np.array(self._numbers)[chunk]
        return np.where(inside | (cause_row < 0), -1, before), rows


def _batches(feed: Feed, chunk: Chunk, here: int, positions: _SourcePositions) -> list[Batch]:
    """The batches of a chunk; `here` events of the source came before it."""
    made = [
        batch_of_frame(
            batch.type,
            batch.frame,
            aggregate_id=batch.aggregate_id,
            clock=batch.clock or feed.clock,
            order=batch.order,
            where=feed.source,
        )
        for batch in chunk.batches
        if len(batch.frame)
    ]
    given = [batch.cause_row for batch in chunk.batches if len(batch.frame)]
    for at, cause_row in enumerate(given):
        if cause_row is not None:
            cause, rows = positions.causes(cause_row, here)
            made[at] = dataclasses.replace(made[at], cause=cause, cause_row=rows)
    return made


def _plain(value: Any) -> dict[str, Any]:
    """A dataclass or a mapping for JSON; `asdict` would copy a read-only mapping, which Python cannot do."""
    if isinstance(value, Mapping):
        return dict(value)
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _from_json(text: str) -> IngestReceipt:
    data: dict[str, Any] = json.loads(text)
    report = data.pop("report")
    report["first_gaps"] = tuple(Gap(**gap) for gap in report["first_gaps"])
    report["warnings"] = tuple(report["warnings"])
    try:
        return IngestReceipt(**{**data, "added": 0, "already": True, "report": FeedReport(**report)})
    except TypeError as error:
        raise FeedError("the stored receipt of this ingest cannot be read", got=str(error)) from error
