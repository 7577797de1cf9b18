from __future__ import annotations

from contextlib import contextmanager

import polars as pl
import pytest

from eventlab.feeds import text


def events(feed, kind: str | None = None) -> pl.DataFrame:
    """All events of a feed (of one type), in the order yielded."""
    frames = [
        batch.frame for chunk in feed.chunks() for batch in chunk.batches if kind is None or batch.type.name == kind
    ]
    return pl.concat(frames)


@contextmanager
def block_bytes(size: int):
    """Read files in blocks of this size, so that small files have many chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "BLOCK_BYTES", size)
        yield
