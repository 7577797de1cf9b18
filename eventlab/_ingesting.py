"""Ingesting a feed: one commit a chunk, keyed by what the source is, so that a rerun resumes or does nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from eventlab._appending import batch_of_frame
from eventlab.errors import FeedError, InvalidEvent, LateEvent
from eventlab.feeds.contract import Chunk, Feed, FeedReport, Gap
from eventlab.progress import tqdm
from eventlab.store.contract import Batch, Late
from eventlab.store.log import EventLog


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
    """

    source: str
    count: int
    added: int
    first_position: int | None
    position: int | None
    already: bool
    clamped: int
    report: FeedReport


def identity(feed: Feed) -> str:
    """Hex digest of what makes two sources the same: name, parameters and content."""
    text = json.dumps([feed.name, dict(feed.params), feed.content_sha256], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def ingest(store: EventLog, feed: Feed, *, late: Late = "reject", progress: bool = True) -> IngestReceipt:
    """See :meth:`eventlab.lab.Lab.ingest`."""
    source = identity(feed)
    kept = store.source_receipt(source)
    if kept is not None:
        return _from_json(kept)
    count = added = clamped = 0
    first: int | None = None
    last: int | None = None
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
                    receipt = store.commit(_batches(feed, chunk), late=late, source=(source, number))
                except InvalidEvent as error:
                    raise _located(error, feed.source, count) from None
                added += receipt.count
            if receipt.count:
                first = receipt.first_position if first is None else first
                last = receipt.position
            count += receipt.count
            clamped += receipt.clamped
            bar.update(chunk.done - bar.n)
    made = IngestReceipt(source, count, added, first, last, already=False, clamped=clamped, report=feed.report)
    store.finish_source(source, _to_json(made))
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
    """The same chunks, each read while the one before is being committed."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = reader.submit(next, chunks, None)
            yield chunk


def _batches(feed: Feed, chunk: Chunk) -> list[Batch]:
    return [
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


def _to_json(receipt: IngestReceipt) -> str:
    report = receipt.report
    # `asdict` would copy a read-only mapping, which Python cannot do
    plain = dataclasses.replace(report, dropped={}, first_gaps=())
    data = {name: getattr(receipt, name) for name in IngestReceipt.__slots__}
    data["report"] = {
        **dataclasses.asdict(plain),
        "dropped": dict(report.dropped),
        "first_gaps": [dataclasses.asdict(gap) for gap in report.first_gaps],
    }
    return json.dumps(data, sort_keys=True)


def _from_json(text: str) -> IngestReceipt:
    data: dict[str, Any] = json.loads(text)
    report = data.pop("report")
    report["first_gaps"] = tuple(Gap(**gap) for gap in report["first_gaps"])
    report["warnings"] = tuple(report["warnings"])
    try:
        return IngestReceipt(**{**data, "added": 0, "already": True, "report": FeedReport(**report)})
    except TypeError as error:
        raise FeedError("what the store kept of this ingest cannot be read", got=str(error)) from error
