from __future__ import annotations

from contextlib import contextmanager

import polars as pl
import pytest

from eventlab.feeds import FeedBatch
from eventlab.feeds.reading import text


def events(feed, kind: str | None = None) -> pl.DataFrame:
    """All events of a feed (of one type), in the order yielded."""
    frames = [
        batch.frame for chunk in feed.chunks() for batch in chunk.batches if kind is None or batch.type.name == kind
    ]
    return pl.concat(frames)


def order_of(batch: FeedBatch) -> list[int]:
    """Row numbers of a batch of a chunk with several."""
    assert batch.order is not None
    return [int(row) for row in batch.order]


@contextmanager
def block_bytes(size: int):
    """Read files in blocks of this size, so that small files have many chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "BLOCK_BYTES", size)
        yield
