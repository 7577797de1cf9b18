"""How format 1 wrote a small commit: Arrow record batches without schema. Read to bring a store up to date.

A blob starts with a byte: 0 for plain, 1 for LZ4 after the u64 length of the plain form. That holds one part per event
type: the header below, a bit for each of the type's columns that is there, then the batch's IPC message of these
columns, header and message each padded to eight bytes. Text lies there as plain strings, words of a closed vocabulary
as codes. A column without any value is left out, and so are numbers that only count up, which the header's first ones
say.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.errors import StoreCorrupt
from eventlab.events.types import EventType
from eventlab.store.blocks import TEXT, Block, null_column

_PART = struct.Struct("<IIQqqq")  # type number, bytes of the message, rows; first position, aggregate, first version
_LENGTH = struct.Struct("<Q")
_LZ4 = 1
_ENVELOPE = [
    pa.field("position", pa.int64()),
    pa.field("aggregate", pa.int64()),
    pa.field("version", pa.int64()),
    pa.field("timestamp", pa.int64()),
    pa.field("cause", pa.int64()),
    pa.field("event_id", pa.string()),
    pa.field("metadata", pa.string()),
]


@lru_cache(maxsize=256)
def _fields(declared: EventType) -> tuple[pa.Field, ...]:
    payload = []
    for field in declared:
        stored = pa.int32() if field.kind == "enum" else pa.string() if field.is_text else field.arrow_type
        payload.append(pa.field(f"_{field.name}", stored))
    return (*_ENVELOPE, *payload)


@lru_cache(maxsize=1024)
def _schema(declared: EventType, present: int) -> pa.Schema:
    return pa.schema([field for bit, field in enumerate(_fields(declared)) if present >> bit & 1])


def from_blob(blob: bytes, types: Mapping[int, EventType]) -> dict[int, Block]:
    """The blocks of one commit by event type number. Raises StoreCorrupt where the bytes are not what was written."""
    blocks: dict[int, Block] = {}
    try:
        if blob[0] == _LZ4:
            (length,) = _LENGTH.unpack_from(blob, 1)
            plain = pa.decompress(blob[1 + _LENGTH.size :], decompressed_size=length, codec="lz4_raw")
        else:
            plain = pa.py_buffer(blob[1:])
        view, start = memoryview(plain), 0
        while start < len(view):
            number, size, rows, *header = _PART.unpack_from(view, start)
            declared = types[number]
            width = (len(_fields(declared)) + 7) // 8
            present = int.from_bytes(view[start + _PART.size : start + _PART.size + width], "little")
            start += _PART.size + width + -(_PART.size + width) % 8
            batch = pa.ipc.read_record_batch(plain.slice(start, size), _schema(declared, present))
            blocks[number] = _block(declared, batch, present, rows, header)
            start += size + -size % 8
    except (pa.ArrowException, OSError, EOFError, struct.error, LookupError, ValueError) as error:
        raise StoreCorrupt("a small commit cannot be read", got=str(error)) from error
    return blocks


def _block(declared: EventType, batch: pa.RecordBatch, present: int, rows: int, header: Sequence[int]) -> Block:
    stored = iter(batch.columns)
    columns = [next(stored) if present >> bit & 1 else None for bit in range(len(_fields(declared)))]
    position, aggregate, version = (
        (np.arange(first, first + rows) if step else np.full(rows, first)) if column is None else column.to_numpy()
        for column, first, step in zip(columns[:3], header, (1, 0, 1), strict=True)
    )
    timestamp, cause, event_id, metadata = columns[3:7]
    if timestamp is None:
        raise StoreCorrupt("a small commit has no event times")
    payload = {}
    for field, column in zip(declared, columns[7:], strict=True):
        if column is None:
            payload[field.name] = null_column(field, rows)
        elif field.kind == "enum":
            payload[field.name] = pa.DictionaryArray.from_arrays(column, _vocabulary(field.vocabulary))
        else:
            payload[field.name] = column.dictionary_encode() if field.is_text else column
    return Block(
        declared,
        position,
        aggregate,
        version,
        timestamp.to_numpy(),
        None if cause is None else cause.to_numpy(),
        event_id,
        None if metadata is None else pc.dictionary_encode(metadata).cast(TEXT),
        payload,
    )


@lru_cache(maxsize=256)
def _vocabulary(words: tuple[str, ...]) -> pa.Array:
    return pa.array(words, pa.string())
