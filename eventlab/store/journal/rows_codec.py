"""Rows of one event type and aggregate as bytes: the blob of a commit of a few events, written without Arrow.

After a byte 1 follow a header (type number, rows, aggregate number, first version, bytes of metadata), the metadata as
JSON, and the rows. A row is a bit mask of what is null, lowest bit for the cause and then a bit a field; event time,
cause, a number for each field, for text its length; and then the texts. Positions and versions count up from the
commit's first.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from eventlab.errors import StoreCorrupt
from eventlab.events.rows import Row, array_of
from eventlab.events.types import EventType
from eventlab.store.blocks import NO_CAUSE, TEXT, Block
from eventlab.store.types import NumberedRows

ROWS = 1
"""The first byte of such a blob."""

_HEADER = struct.Struct("<BIIqqI")
_FORMATS = {"float": "d", "int": "q", "time": "q", "bool": "?", "enum": "i", "string": "I", "symbol": "I"}
MOST_FIELDS = 63
"""Event types with more fields have no bit for each in a row's mask, and are written as columns."""


@lru_cache(maxsize=256)
def _row_layout(declared: EventType) -> tuple[struct.Struct, tuple[int, ...]]:
    """The fixed part of a row, and which of its fields are texts."""
    fixed = struct.Struct("<Qqq" + "".join(_FORMATS[field.kind] for field in declared))
    texts = tuple(i for i, field in enumerate(declared) if field.kind in ("string", "symbol"))
    return fixed, texts


def rows_blob(commit: NumberedRows) -> bytes:
    """The blob of a commit."""
    fixed, texts = _row_layout(commit.type)
    text = b"" if commit.metadata is None else commit.metadata.encode()
    header = _HEADER.pack(ROWS, commit.kind, len(commit.rows), commit.aggregate, commit.first_version, len(text))
    parts = [header, text]
    causes = commit.causes or itertools.repeat(NO_CAUSE)
    for row, timestamp, cause in zip(commit.rows, commit.timestamps, causes, strict=False):
        mask = 1 if cause < 0 else 0
        numbers = list(row)
        for index in texts:
            value = numbers[index]
            if value is not None:
                numbers[index] = len(value)
        if None in numbers:
            for index, value in enumerate(numbers):
                if value is None:
                    mask |= 2 << index
                    numbers[index] = 0
        parts.append(fixed.pack(mask, timestamp, max(cause, 0), *numbers))
        parts += [row[index] for index in texts if row[index]]
    return b"".join(parts)


@dataclass(slots=True)
class _Columns:
    """Values gathered from the blobs of many commits, to become arrays once."""

    rows: list[Row]
    counts: list[int]
    firsts: list[tuple[int, int, int]]  # position, aggregate, version
    timestamps: list[int]
    causes: list[int]
    metadata: list[str | None]


def number_of(blob: bytes) -> int:
    """The event type's number."""
    return int(_HEADER.unpack_from(blob)[1])


def rows_block(commits: Sequence[tuple[int, bytes]], types: Mapping[int, EventType]) -> Block:
    """The blobs of several commits of one event type, each with its first position, as one block.

    Raises
    ------
    StoreCorrupt
        Bytes that `rows_blob` cannot have written.
    """
    try:
        declared = types[number_of(commits[0][1])]
        found = _Columns([], [], [], [], [], [])
        for first, blob in commits:
            _gather(declared, first, blob, found)
        return _block(declared, found)
    except (struct.error, LookupError, ValueError, pa.ArrowException) as error:
        raise StoreCorrupt("a small commit cannot be read", got=str(error)) from error


def _gather(declared: EventType, first: int, blob: bytes, found: _Columns) -> None:
    fixed, texts = _row_layout(declared)
    _, _, count, aggregate, version, size = _HEADER.unpack_from(blob)
    at = _HEADER.size + size
    found.counts.append(count)
    found.firsts.append((first, aggregate, version))
    found.metadata.append(blob[_HEADER.size : at].decode() if size else None)
    for _ in range(count):
        mask, timestamp, cause, *row = fixed.unpack_from(blob, at)
        at += fixed.size
        for index in texts:
            length = row[index]
            row[index] = blob[at : at + length]
            at += length
        if mask > 1:
            row = [None if mask & (2 << index) else value for index, value in enumerate(row)]
        found.rows.append(tuple(row))
        found.timestamps.append(timestamp)
        found.causes.append(NO_CAUSE if mask & 1 else cause)
    if at != len(blob):
        raise ValueError("it has another length than its rows")


def _block(declared: EventType, found: _Columns) -> Block:
    counts = np.array(found.counts, dtype=np.int64)
    firsts = np.array(found.firsts, dtype=np.int64)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    causes = np.array(found.causes, dtype=np.int64)
    metadata = None
    if any(found.metadata):
        texts = pa.array(found.metadata, pa.string()).dictionary_encode()
        metadata = texts.take(pa.array(np.repeat(np.arange(len(counts)), counts))).cast(TEXT)
    columns = zip(*found.rows, strict=True) if len(declared.fields) else ()
    return Block(
        declared,
        np.repeat(firsts[:, 0], counts) + within,
        np.repeat(firsts[:, 1], counts),
        np.repeat(firsts[:, 2], counts) + within,
        np.array(found.timestamps, dtype=np.int64),
        causes if (causes >= 0).any() else None,
        None,
        metadata,
        {field.name: array_of(field, values) for field, values in zip(declared, columns, strict=True)},
    )
