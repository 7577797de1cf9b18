"""The digest of a commit of a few rows, computed without Arrow; `columns.py` defines its bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any

from eventlab.events.types import EventType
from eventlab.store.hash_chain import columns
from eventlab.store.types import NumberedRows

Leaf = Callable[[Sequence[Any]], bytes]

_KEPT_TEXT = 256
"""Digests of longer texts are not kept: they seldom come again, and the texts would be kept with them."""


def digest(previous: bytes, commit: NumberedRows) -> bytes:
    """Digest of a commit of rows."""
    rows, count = commit.rows, len(commit.rows)
    names, prefixes, makers, schema = _plan(commit.type)
    leaves = {
        "": schema,
        "aggregate_id": _same_text(commit.aggregate_id.encode(), count),
        "version": _integers(range(commit.first_version, commit.first_version + count)),
        "timestamp": _integers(commit.timestamps),
    }
    if commit.causes is not None and max(commit.causes) >= 0:
        leaves["cause"] = _integers([None if cause < 0 else cause for cause in commit.causes])
    if commit.metadata is not None:
        leaves["metadata"] = _same_text(commit.metadata.encode(), count)
    if count == 1:
        for name, make, value in zip(names, makers, rows[0], strict=True):
            if value is not None:
                leaves[name] = make((value,))
    else:
        for name, make, *values in zip(names, makers, *rows, strict=True):
            if any(value is not None for value in values):
                leaves[name] = make(values)
    body = b"".join([prefix + leaves[name] for name, prefix in prefixes if name in leaves])
    header = columns.header(previous, commit.first_position, count, commit.recorded_at, len(leaves))
    return sha256(header + body).digest()


@lru_cache(maxsize=256)
def _plan(
    declared: EventType,
) -> tuple[tuple[str, ...], tuple[tuple[str, bytes], ...], tuple[Leaf, ...], bytes]:
    """Names of the fields; leaves' names in order with the bytes before their digests; leaf makers; schema digest."""
    names = tuple(field.name for field in declared)
    every = ["", "aggregate_id", "version", "timestamp", "cause", "metadata", *names]
    prefixes = tuple((name, columns.leaf_prefix(declared.name, name)) for name in sorted(every, key=str.encode))
    makers: list[Leaf] = []
    for field in declared:
        if field.kind == "float":
            makers.append(_floats)
        elif field.kind == "bool":
            makers.append(_bools)
        elif field.kind == "enum":
            makers.append(_words(tuple(word.encode() for word in field.vocabulary)))
        elif field.is_text:
            makers.append(_texts)
        else:
            makers.append(_integers)
    return names, prefixes, tuple(makers), columns.schema_digest(declared)


_ONE_FLOAT = struct.Struct("<BQBd")
_ONE_INTEGER = struct.Struct("<BQBq")


def _floats(values: Sequence[Any]) -> bytes:
    if len(values) == 1:
        return sha256(_ONE_FLOAT.pack(columns.FLOAT, 1, 0, values[0])).digest()
    return _fixed(columns.FLOAT, "d", 0.0, values)


def _integers(values: Sequence[Any]) -> bytes:
    if len(values) == 1:
        return sha256(_ONE_INTEGER.pack(columns.INTEGER, 1, 0, values[0])).digest()
    return _fixed(columns.INTEGER, "q", 0, values)


def _fixed(kind: int, code: str, zero: float, values: Sequence[Any]) -> bytes:
    filled = [zero if value is None else value for value in values]
    return sha256(_head(kind, values) + struct.pack(f"<{len(values)}{code}", *filled)).digest()


def _bools(values: Sequence[Any]) -> bytes:
    return sha256(_head(columns.BOOL, values) + _bits(values)).digest()


def _head(kind: int, values: Sequence[Any]) -> bytes:
    nulls = b"\0" if None not in values else b"\1" + _bits([value is not None for value in values])
    return struct.pack("<BQ", kind, len(values)) + nulls


def _bits(flags: Sequence[Any]) -> bytes:
    number = sum(1 << index for index, flag in enumerate(flags) if flag)
    return number.to_bytes((len(flags) + 7) // 8, "little")


def _same_text(text: bytes, count: int) -> bytes:
    return _kept_same_text(text, count) if len(text) <= _KEPT_TEXT else _texts((text,) * count)


@lru_cache(maxsize=4096)
def _kept_same_text(text: bytes, count: int) -> bytes:
    return _texts((text,) * count)


def _one_text(text: bytes) -> bytes:
    return sha256(struct.pack("<BQBII", columns.TEXT, 1, 0, 1, len(text)) + text + b"\1\0").digest()


_kept_one_text = lru_cache(maxsize=4096)(_one_text)


def _texts(values: Sequence[Any]) -> bytes:
    if len(values) == 1:
        return _kept_one_text(values[0]) if len(values[0]) <= _KEPT_TEXT else _one_text(values[0])
    codes: dict[bytes, int] = {}
    spread = bytes(0 if value is None else codes.setdefault(value, len(codes)) for value in values)
    distinct = b"".join(struct.pack("<I", len(text)) + text for text in codes)
    return sha256(_head(columns.TEXT, values) + struct.pack("<I", len(codes)) + distinct + b"\1" + spread).digest()


def _words(vocabulary: tuple[bytes, ...]) -> Leaf:
    return lambda codes: _texts([None if code is None else vocabulary[code] for code in codes])
