"""Events as length-delimited streams of `eventlab.v1.DomainEvent`, equal to the columns field for field.

This is interchange, for other programs and languages: it makes a message object per event, as nothing else here does.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from eventlab.errors import InvalidEvent, SchemaMismatch, UnknownEventType
from eventlab.events.columns import metadata_json, payload_from_frame, timestamps_from
from eventlab.events.frame import Int64Array
from eventlab.events.types import ENVELOPE, EventType, event_type, prefer_declared
from eventlab.interchange.protobuf.delimited import delimited, messages
from eventlab.interchange.protobuf.domain_event_pb2 import DomainEvent
from eventlab.interchange.protobuf.messages import BUILTIN, Codec, codec_of, get_ns, put_ns

_ROWS = 16_384
_CHUNK_BYTES = 1 << 26
_TIME = pl.Datetime("ns", "UTC")


def dump(frames: Iterable[tuple[EventType | type | str, pl.DataFrame]], file: BinaryIO) -> int:
    """Write events to a stream.

    Parameters
    ----------
    frames : iterable of (event class, its name or EventType; polars.DataFrame)
        In the order to be written. Columns as `encode` takes them.
    file : binary file
        Written from its current position. A refused frame leaves complete messages in it, never part of one.

    Returns
    -------
    int
        Number of events written.

    Raises
    ------
    InvalidEvent
        A column or value that cannot become an event; names row, column and value.
    UnknownEventType
        A class or name that was not declared with ``@el.event``.

    Examples
    --------
    >>> import io
    >>> from eventlab.events.builtin import Funding
    >>> frame = pl.DataFrame({"aggregate_id": "funding/BTCUSDT", "timestamp": [0], "symbol": "BTCUSDT", "rate": 1e-4})
    >>> file = io.BytesIO()
    >>> dump([(Funding, frame)], file)
    1
    >>> _ = file.seek(0)
    >>> [(declared.name, events["rate"].to_list()) for declared, events in load(file)]
    [('funding', [0.0001])]
    """
    count = 0
    for declared, frame in frames:
        for message in encode(event_type(declared), frame):
            file.write(message)
            count += 1
    return count


def encode(declared: EventType, frame: pl.DataFrame) -> Iterator[bytes]:
    """Encode a frame's events as messages, each after its length as a varint.

    Parameters
    ----------
    declared : EventType
    frame : polars.DataFrame
        The payload columns, `aggregate_id` and `timestamp`; and where known `position`, `version`, `cause`,
        `event_id`, `metadata` (a JSON object of strings) and `recorded_at`. All that the frame does not say is null.

    Yields
    ------
    bytes
        Equal events give equal bytes.

    Raises
    ------
    InvalidEvent
        A column or value that cannot become an event, or an event longer than 64 MiB.
    SchemaMismatch
        `declared` is another version of a built-in type.
    """
    for number, data in enumerate(bodies(declared, frame)):
        yield delimited(data, f"row {number}")


def bodies(declared: EventType, frame: pl.DataFrame) -> Iterator[bytes]:
    """The messages of `encode`, without their lengths."""
    codec = codec_of(declared)
    payload = payload_from_frame(declared, frame.drop(ENVELOPE, strict=False))
    envelope = _envelope(frame)
    for start in range(0, len(frame), _ROWS):
        rows = zip(
            *(envelope[name].slice(start, _ROWS).to_list() for name in ENVELOPE),
            zip(*(_python_values(column.slice(start, _ROWS)) for column in payload.columns), strict=True),
            strict=True,
        )
        for number, row in enumerate(rows, start):
            try:
                message = _message(codec, row)
            except InvalidEvent as error:
                raise InvalidEvent(f"row {number}: {error.what}", got=error.got, expected=error.expected) from error
            yield message.SerializeToString(deterministic=True)


def _message(codec: Codec, row: tuple[Any, ...]) -> DomainEvent:
    declared = codec.declared
    position, aggregate_id, version, timestamp, cause, event_id, metadata, recorded_at, payload = row
    event = DomainEvent(
        event_id=event_id,
        aggregate_id=aggregate_id,
        event_type=declared.name,
        version=version,
        metadata=_metadata_dict(metadata),
        schema_version=declared.schema_version,
        position=position,
        cause=cause,
    )
    put_ns(event.timestamp, timestamp)
    if recorded_at is not None:
        put_ns(event.recorded_at, recorded_at)
    body = codec.message() if codec.url else getattr(event, declared.name)
    for put, value in zip(codec.put, payload, strict=True):
        if value is not None:
            put(body, value)
    if codec.url:
        event.other.type_url = codec.url
        event.other.value = body.SerializeToString(deterministic=True)
    else:
        body.SetInParent()  # a payload of nothing but defaults is still there
    return event


def _python_values(column: pa.Array) -> list[Any]:
    values = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
    return values.to_pylist()  # type: ignore[no-any-return]


def _envelope(frame: pl.DataFrame) -> dict[str, pl.Series]:
    columns = {
        "timestamp": pl.Series("timestamp", timestamps_from(_needed(frame, "timestamp"))),
        "aggregate_id": _text(_needed(frame, "aggregate_id")),
        "position": _integers(frame, "position", 0),
        "version": _integers(frame, "version", 1),
        "cause": _integers(frame, "cause", 0),
        "recorded_at": _recorded(frame),
    }
    for name in ("event_id", "metadata"):
        columns[name] = _text(frame[name]) if name in frame.columns else _nulls(name, len(frame), pl.String())
    bad = (columns["aggregate_id"].is_null() | (columns["aggregate_id"] == "")).arg_true()
    if len(bad):
        raise InvalidEvent(f"row {bad[0]}, column 'aggregate_id': empty", expected="a name in every row")
    return columns


def _recorded(frame: pl.DataFrame) -> pl.Series:
    """Times of commits as int64 nanoseconds, or nulls."""
    if "recorded_at" not in frame.columns or frame["recorded_at"].null_count() == len(frame):
        return _nulls("recorded_at", len(frame), pl.Int64())
    given = frame["recorded_at"]
    timestamps_from(given.drop_nulls().alias("recorded_at"))  # refuses what is no time
    return given if given.dtype.is_integer() else given.dt.cast_time_unit("ns").to_physical()


def _needed(frame: pl.DataFrame, name: str) -> pl.Series:
    if name not in frame.columns:
        raise InvalidEvent(f"events need a column {name!r}", got=", ".join(frame.columns) or "none")
    return frame[name]


def _nulls(name: str, rows: int, dtype: pl.DataType) -> pl.Series:
    return pl.Series(name, [None], dtype).new_from_index(0, rows)


def _text(series: pl.Series) -> pl.Series:
    if series.dtype not in (pl.String, pl.Categorical, pl.Null) and not isinstance(series.dtype, pl.Enum):
        raise InvalidEvent(f"column {series.name!r} has the wrong type", got=series.dtype, expected="text")
    return series.cast(pl.String)


def _integers(frame: pl.DataFrame, name: str, lowest: int) -> pl.Series:
    if name not in frame.columns:
        return _nulls(name, len(frame), pl.Int64())
    series = frame[name]
    if not series.dtype.is_integer() and series.dtype != pl.Null:
        raise InvalidEvent(f"column {name!r} has the wrong type", got=series.dtype, expected="integers")
    numbers = series.cast(pl.Int64, strict=False)
    bad = ((numbers < lowest) | (numbers.is_null() & series.is_not_null())).arg_true()
    if len(bad):
        raise InvalidEvent(
            f"row {bad[0]}, column {name!r}: value refused", got=series[bad[0]], expected=f"an int64 from {lowest}"
        )
    return numbers


@lru_cache(maxsize=256)  # metadata is given once for an append, and repeats along its rows
def _metadata_dict(text: str | None) -> Mapping[str, str]:
    if text is None:
        return {}
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()  # a lone surrogate, written as an escape, is no text
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise InvalidEvent("metadata cannot be read", got=text, expected="a JSON object with strings as values")
    return found


def load(
    file: BinaryIO, *, chunk: int = 65_536, types: Mapping[str, EventType] | None = None
) -> Iterator[tuple[EventType, pl.DataFrame]]:
    """Read events from a stream, a bounded number at a time.

    Parameters
    ----------
    file : binary file
        Read from its current position to its end.
    chunk : int
        Most events in memory at once; fewer if they are long. Each chunk gives one frame per event type, in the order
        in which the types first appear. The column `position`, if the writer gave it, restores the order among them.
    types : mapping of str to EventType, optional
        A user's types by name, which precede those declared in this process. A stream may bring the schemas of others.

    Yields
    ------
    (EventType, polars.DataFrame)
        The envelope's columns and the payload's, in the types of ``lab.events``. Values that the writer left out
        are null, and so are empty metadata.

    Raises
    ------
    InvalidEvent
        The stream is cut off, or a length, a `DomainEvent` or a value is invalid. The error has the number of the
        message, from 0, and its first byte.
    UnknownEventType
        A type that is neither built in, in `types`, nor declared in this process.
    SchemaMismatch
        An event of another version of its type.
    """
    for run in runs(file, chunk, types):
        yield from ((declared, frame) for declared, frame, _ in run)


def runs(
    file: BinaryIO, chunk: int, types: Mapping[str, EventType] | None = None
) -> Iterator[list[tuple[EventType, pl.DataFrame, Int64Array]]]:
    """The frames of :func:`load` by chunk, with the events' numbers in the stream."""
    if chunk < 1:
        raise InvalidEvent("chunk must be positive", got=chunk)
    known = dict(types or {})
    gathered: dict[EventType, _MessageColumns] = {}
    count = size = 0
    for number, (at, data) in enumerate(messages(file)):
        try:
            event = DomainEvent.FromString(data)
        except DecodeError as error:
            raise InvalidEvent(f"{at}: not a DomainEvent", got=data[:32]) from error
        try:
            if event.schema:
                brought = EventType.from_schema_json(event.schema)
                if brought.name != event.event_type:
                    what = "an event brings the schema of another type"
                    raise InvalidEvent(what, got=brought.name, expected=event.event_type)
                known.setdefault(brought.name, prefer_declared(brought))  # unless the caller gave one
            codec = _codec_for(event, known)
            gathered.setdefault(codec.declared, _MessageColumns(codec)).add(event, at, number)
        except (InvalidEvent, UnknownEventType, SchemaMismatch) as error:
            raise type(error)(f"{at}: {error.what}", got=error.got, expected=error.expected, hint=error.hint) from error
        count, size = count + 1, size + len(data)
        if count == chunk or size >= _CHUNK_BYTES:
            yield [(declared, rows.frame(), rows.numbers()) for declared, rows in gathered.items()]
            gathered, count, size = {}, 0, 0
    if gathered:
        yield [(declared, rows.frame(), rows.numbers()) for declared, rows in gathered.items()]


def decode(data: bytes, *, types: Mapping[str, EventType] | None = None) -> dict[str, pl.DataFrame]:
    """All events of a stream in memory: one frame per event type, by name. Raises like :func:`load`."""
    frames: dict[str, list[pl.DataFrame]] = {}
    for declared, frame in load(io.BytesIO(data), types=types):
        frames.setdefault(declared.name, []).append(frame)
    return {name: pl.concat(parts) for name, parts in frames.items()}


def _codec_for(event: DomainEvent, types: Mapping[str, EventType]) -> Codec:
    payload, name = event.WhichOneof("payload"), event.event_type
    if payload in BUILTIN:
        name = name or payload
        declared = event_type(payload)
    elif name in types and name not in BUILTIN:
        declared = types[name]
    else:
        declared = event_type(name)
    codec = codec_of(declared)
    expected = codec.url or declared.name
    found = event.other.type_url if payload == "other" else payload
    if found != expected or name != declared.name:
        raise InvalidEvent(f"an event of type {name!r} with another payload", got=found or "none", expected=expected)
    if event.schema_version not in (0, declared.schema_version):
        raise SchemaMismatch(
            f"{name!r} was written with another schema version",
            got=event.schema_version,
            expected=declared.schema_version,
            hint="Give that version's type in `types`, or export again from its store with the declared version.",
        )
    return codec


class _MessageColumns:
    """Collects the messages of one event type as columns."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.at: list[str] = []
        self.number: list[int] = []
        self.envelope: list[tuple[Any, ...]] = []
        self.payload: list[tuple[Any, ...]] = []

    def add(self, event: DomainEvent, at: str, number: int) -> None:
        if not event.aggregate_id:
            raise InvalidEvent("no aggregate_id")
        if not event.HasField("timestamp"):
            raise InvalidEvent("no timestamp")
        if event.version < 0:
            raise InvalidEvent("a negative version", got=event.version)
        body = self._opened(event) if self.codec.url else getattr(event, self.codec.declared.name)
        self.payload.append(tuple(get(body) for get in self.codec.get))
        self.envelope.append(
            (
                event.position if event.HasField("position") else None,
                event.aggregate_id,
                event.version or None,
                get_ns(event.timestamp),
                event.cause if event.HasField("cause") else None,
                event.event_id if event.HasField("event_id") else None,
                metadata_json(event.metadata),
                get_ns(event.recorded_at) if event.HasField("recorded_at") else None,
            )
        )
        self.at.append(at)
        self.number.append(number)

    def numbers(self) -> Int64Array:
        return np.array(self.number, dtype=np.int64)

    def _opened(self, event: DomainEvent) -> Any:
        try:
            body = self.codec.message.FromString(event.other.value)
        except DecodeError as error:
            raise InvalidEvent(f"not a payload of {self.codec.declared.name!r}", got=event.other.value[:32]) from error
        if len(UnknownFieldSet(body)):
            raise SchemaMismatch(
                f"{self.codec.declared.name!r} was written with other fields",
                expected=", ".join(field.name for field in self.codec.declared),
            )
        return body

    def frame(self) -> pl.DataFrame:
        declared = self.codec.declared
        schema = {
            f.name: pl.String() if f.is_text else pl.Int64() if f.kind == "time" else f.polars_type for f in declared
        }
        payload = pl.DataFrame(self.payload, schema, orient="row")
        self._check(payload)
        types = [pl.Int64, pl.String, pl.Int64, pl.Int64, pl.Int64, pl.String, pl.String, pl.Int64]
        envelope = pl.DataFrame(self.envelope, dict(zip(ENVELOPE, types, strict=True)), orient="row")
        envelope = envelope.cast({"timestamp": _TIME, "recorded_at": _TIME})
        return envelope.hstack(payload.cast(pl.Schema(declared.polars_schema)))

    def _check(self, payload: pl.DataFrame) -> None:
        try:
            payload_from_frame(self.codec.declared, payload)
        except InvalidEvent:
            for row, at in enumerate(self.at):  # once more, slowly, to say which message it was
                payload_from_frame(self.codec.declared, payload[row], where=at)
            raise
