"""Streams of DomainEvent: equal to the columns field for field, the same as protobuf's own writer, never trusted."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import polars as pl
import pytest
from google.protobuf import any_pb2, descriptor_pb2, proto, timestamp_pb2
from hypothesis import example, given
from hypothesis import strategies as st

import eventlab.events
from eventlab.errors import InvalidEvent, SchemaMismatch, UnknownEventType
from eventlab.events.builtin import Funding, MarketData
from eventlab.events.types import EventType, Symbol, event, event_type
from eventlab.interchange.protobuf import delimited as _delimited
from eventlab.interchange.protobuf import domain_event_pb2
from eventlab.interchange.protobuf.convert import decode, dump, encode, load
from eventlab.interchange.protobuf.domain_event_pb2 import DomainEvent
from eventlab.interchange.protobuf.messages import BUILTIN, codec_of
from tests.events.strategies import BUILTIN_NAMES, builtin_types, frames, same_bits, user_types

TRADE = event_type(MarketData)
FUNDING = event_type(Funding)


@event(schema_version=2)
class ProtobufLiquidation:
    """A user's own type."""

    symbol: Symbol
    price: float
    order_id: int | None = None


LIQUIDATION = event_type(ProtobufLiquidation)


def stream(declared: EventType, frame: pl.DataFrame) -> bytes:
    return b"".join(encode(declared, frame))


def one(declared: EventType, **columns: object) -> pl.DataFrame:
    frame = pl.DataFrame({"aggregate_id": ["a"], "timestamp": [0]} | {name: [value] for name, value in columns.items()})
    return next(load(io.BytesIO(stream(declared, frame))))[1]


def trade_message(**fields: object) -> DomainEvent:
    made = DomainEvent(aggregate_id="market/A", event_type="market_data", version=1, **fields)
    made.timestamp.seconds = 1
    made.market_data.symbol, made.market_data.price, made.market_data.volume = "A", 1.5, 2.0
    return made


def written(*messages: DomainEvent) -> bytes:
    file = io.BytesIO()
    for message in messages:
        proto.serialize_length_prefixed(message, file)
    return file.getvalue()


def naive_messages(declared: EventType, frame: pl.DataFrame) -> list[DomainEvent]:
    """The twin: protobuf's JSON-like dictionaries, a row at a time."""
    times = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Datetime)]
    made = []
    for row in frame.with_columns(pl.col(times).to_physical()).to_dicts():
        for name in times:
            if row[name] is not None:
                row[name] = timestamp_pb2.Timestamp(seconds=row[name] // 10**9, nanos=row[name] % 10**9)
        payload = {field.name: row.pop(field.name) for field in declared}
        row["metadata"] = json.loads(row["metadata"] or "{}")
        fields = {"event_type": declared.name, "schema_version": declared.schema_version}
        codec = codec_of(declared)
        if codec.url is None:
            made.append(DomainEvent(**row, **fields, **{declared.name: codec.message(**payload)}))
        else:
            known = {name: value for name, value in payload.items() if not isinstance(value, timestamp_pb2.Timestamp)}
            body = codec.message(**known)
            for name in payload.keys() - known.keys():  # the type's own pool has another Timestamp class
                getattr(body, name).MergeFromString(payload[name].SerializeToString())
                getattr(body, name).SetInParent()
            packed = any_pb2.Any(type_url=codec.url, value=body.SerializeToString(deterministic=True))
            made.append(DomainEvent(**row, **fields, other=packed))
    return made


def test_the_generated_code_is_that_of_the_proto(tmp_path):
    root = Path(eventlab.events.__file__).parents[2]
    source = "eventlab/interchange/protobuf/domain_event.proto"
    made = subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{root}", f"--descriptor_set_out={tmp_path / 'set'}",
         f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", source],
        capture_output=True, text=True, check=False, cwd=root,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    (described,) = descriptor_pb2.FileDescriptorSet.FromString((tmp_path / "set").read_bytes()).file
    for message in described.message_type:
        for field in (*message.field, *(field for nested in message.nested_type for field in nested.field)):
            field.ClearField("json_name")
    committed = descriptor_pb2.FileDescriptorProto.FromString(domain_event_pb2.DESCRIPTOR.serialized_pb)
    assert described == committed
    stubs = "eventlab/interchange/protobuf/domain_event_pb2.pyi"
    names = {line.split("(")[0] for line in (tmp_path / stubs).read_text().splitlines() if line.startswith("class ")}
    assert names == {
        line.split("(")[0] for line in (root / stubs).read_text().splitlines() if line.startswith("class ")
    }


def test_the_source_schema_keeps_its_numbers():
    numbers = {field.name: field.number for field in DomainEvent.DESCRIPTOR.fields}
    assert {name: number for name, number in numbers.items() if number < 10} == {
        "event_id": 1, "aggregate_id": 2, "event_type": 3, "timestamp": 4, "version": 5,
        "market_data": 6, "trading_signal": 7, "portfolio_change": 8, "metadata": 9,
    }  # fmt: skip
    market = domain_event_pb2.MarketData.DESCRIPTOR.fields_by_name
    assert [market[name].number for name in ("symbol", "price", "volume")] == [1, 2, 3]
    assert set(BUILTIN_NAMES) == BUILTIN


@pytest.mark.parametrize("name", BUILTIN_NAMES)
def test_the_proto_has_each_built_in_field_with_its_nullability(name):
    message = getattr(domain_event_pb2, event_type(name).cls.__name__).DESCRIPTOR
    wire = {"float": "TYPE_DOUBLE", "int": "TYPE_INT64", "bool": "TYPE_BOOL", "time": "TYPE_MESSAGE"}
    assert [(f.name, f.type, f.has_presence) for f in message.fields] == [
        (
            field.name,
            descriptor_pb2.FieldDescriptorProto.Type.Value(wire.get(field.kind, "TYPE_STRING")),
            field.nullable,
        )
        for field in event_type(name)
    ]


@given(st.data())
def test_columns_to_messages_and_back_without_loss(data):
    declared = data.draw(builtin_types() | user_types())
    frame = data.draw(frames(declared))
    found = decode(stream(declared, frame), types={declared.name: declared})
    assert list(found) == [declared.name] * bool(len(frame))
    if len(frame):
        assert same_bits(found[declared.name], frame)


@given(st.data())
def test_the_bytes_are_those_of_protobufs_own_writer(data):
    declared = data.draw(builtin_types() | user_types())
    frame = data.draw(frames(declared))
    ours = io.BytesIO(stream(declared, frame))
    theirs = []
    while (message := proto.parse_length_prefixed(DomainEvent, ours)) is not None:
        theirs.append(message)
    assert theirs == naive_messages(declared, frame)
    again = decode(written(*theirs), types={declared.name: declared})
    assert not len(frame) or same_bits(again[declared.name], frame)


@given(st.data(), st.integers(1, 5))
def test_a_stream_of_several_types_comes_in_bounded_frames(data, chunk):
    parts = [(declared, data.draw(frames(declared))) for declared in (TRADE, FUNDING, LIQUIDATION, TRADE)]
    file = io.BytesIO()
    count = dump(parts, file)
    assert count == sum(len(frame) for _, frame in parts)
    file.seek(0)
    pieces = list(load(file, chunk=chunk))
    assert all(1 <= len(piece) <= chunk for _, piece in pieces)
    for declared in (TRADE, FUNDING, LIQUIDATION):
        expected = pl.concat([frame for kind, frame in parts if kind is declared])
        got = [piece for kind, piece in pieces if kind == declared]
        assert same_bits(pl.concat([expected.clear(), *got]), expected)


@given(st.data())
def test_a_torn_stream_gives_whole_events_then_names_the_torn_one(data):
    frame = data.draw(frames(TRADE, 4).filter(len))
    messages = list(encode(TRADE, frame))
    whole = data.draw(st.integers(0, len(messages) - 1))
    kept = data.draw(st.integers(1, len(messages[whole]) - 1))
    torn = io.BytesIO(b"".join(messages[:whole]) + messages[whole][:kept])
    read = load(torn, chunk=1)
    for row in range(whole):
        assert same_bits(next(read)[1], frame[row])
    offset = sum(map(len, messages[:whole]))
    with pytest.raises(InvalidEvent, match=rf"^message {whole} at byte {offset}: .*the stream ends inside"):
        next(read)


@given(st.binary(max_size=200))
@example(b"\x80" * 11)
@example(b"\xff\xff\xff\xff\x0f")
@example(b"\x00")
@example(written(trade_message()) + b"\x80")
def test_arbitrary_bytes_are_events_or_refused(data):
    try:
        for _, frame in load(io.BytesIO(data)):
            assert len(frame)
    except (InvalidEvent, UnknownEventType, SchemaMismatch) as error:
        assert str(error).startswith("message ")


@given(st.data())
def test_a_flipped_byte_never_breaks_out_of_our_errors(data):
    original = bytearray(stream(LIQUIDATION, data.draw(frames(LIQUIDATION, 2).filter(len))))
    original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(original))
    except (InvalidEvent, UnknownEventType, SchemaMismatch) as error:
        assert str(error).startswith("message ")


@pytest.mark.parametrize("length", [b"\xff\xff\xff\xff\x7f", b"\x80\x80\x80\x80\x80\x01", b"\x81\x80\x80\x20"])
def test_a_length_is_never_trusted(length):
    first = written(trade_message())
    with pytest.raises(InvalidEvent, match=rf"message 1 at byte {len(first)}: not a length.*at most 67108864"):
        decode(first + length + b"x" * 50)


def test_too_large_an_event_is_not_written(monkeypatch):
    monkeypatch.setattr(_delimited, "MAX_MESSAGE", 100)
    frame = pl.DataFrame(
        {"aggregate_id": ["a", "b" * 100], "timestamp": [0, 0], "symbol": ["A", "A"], "rate": [0.1, 0.1]}
    )
    made = encode(FUNDING, frame)
    next(made)
    with pytest.raises(InvalidEvent, match="row 1: too large an event"):
        next(made)


@pytest.mark.parametrize(
    ("ns", "seconds", "nanos"),
    [(0, 0, 0), (-1, -1, 999_999_999), (-(10**9), -1, 0), (2**63 - 1, 9223372036, 854775807), (1, 0, 1)],
)
def test_nanos_count_forward_also_before_1970(ns, seconds, nanos):
    frame = pl.DataFrame({"aggregate_id": "a", "timestamp": [ns], "symbol": "A", "rate": 0.5})
    message = proto.parse_length_prefixed(DomainEvent, io.BytesIO(stream(FUNDING, frame)))
    assert (message.timestamp.seconds, message.timestamp.nanos) == (seconds, nanos)
    assert decode(stream(FUNDING, frame))["funding"]["timestamp"].to_physical().to_list() == [ns]


def test_null_is_not_the_default():
    trade = {"symbol": "A", "price": 1.0, "volume": 1.0}
    null = one(TRADE, **trade)
    zero = one(TRADE, **trade, trade_id=0, received_at=0, event_id="", position=0, cause=0)
    names = ["trade_id", "received_at", "event_id", "position", "cause"]
    assert null.select(names).row(0) == (None,) * 5
    assert zero.select(pl.col(names).to_physical()).row(0) == (0, 0, "", 0, 0)


def test_a_users_own_type_travels_as_any_with_exact_integers():
    frame = one(LIQUIDATION, symbol="A", price=-0.0, order_id=2**63 - 1)
    message = proto.parse_length_prefixed(DomainEvent, io.BytesIO(stream(LIQUIDATION, frame)))
    assert message.other.type_url == "eventlab.dev/user.protobuf_liquidation"
    assert frame["order_id"].to_list() == [2**63 - 1]
    assert str(frame["price"][0]) == "-0.0"


def test_what_another_program_leaves_out_is_null():
    (frame,) = decode(written(trade_message())).values()
    row = frame.row(0, named=True)
    assert [row[name] for name in ("position", "cause", "event_id", "metadata", "side")] == [None] * 5
    bare = trade_message()
    bare.ClearField("event_type")
    bare.ClearField("version")
    assert decode(written(bare))["market_data"]["version"].to_list() == [None]


def _without(field: str) -> DomainEvent:
    made = trade_message()
    made.ClearField(field)
    return made


def _with(**fields: object) -> DomainEvent:
    made = trade_message()
    for name, value in fields.items():
        setattr(made.market_data if name in ("price", "symbol", "side") else made, name, value)
    return made


def _nanos(nanos: int, seconds: int = 0) -> DomainEvent:
    made = trade_message()
    made.timestamp.seconds, made.timestamp.nanos = seconds, nanos
    return made


def _any(url: str, value: bytes, name: str = "protobuf_liquidation", schema_version: int = 0) -> DomainEvent:
    made = DomainEvent(aggregate_id="a", event_type=name, schema_version=schema_version)
    made.timestamp.SetInParent()
    made.other.type_url, made.other.value = url, value
    return made


OWN = "eventlab.dev/user.protobuf_liquidation"


@pytest.mark.parametrize(
    ("message", "error", "match"),
    [
        (_without("aggregate_id"), InvalidEvent, "no aggregate_id"),
        (_without("timestamp"), InvalidEvent, "no timestamp"),
        (_without("market_data"), InvalidEvent, "another payload; got none; expected market_data"),
        (_with(version=-1), InvalidEvent, "a negative version"),
        (_with(event_type="quote"), InvalidEvent, "'quote' with another payload"),
        (_with(event_type="never_declared"), InvalidEvent, "'never_declared' with another payload"),
        (_with(schema_version=7), SchemaMismatch, "another schema version; got 7; expected 1"),
        (_with(price=float("nan")), InvalidEvent, "column 'price': value refused; got nan"),
        (_with(price=-1.0), InvalidEvent, "column 'price': value refused; got -1.0"),
        (_with(symbol=""), InvalidEvent, "column 'symbol': value refused"),
        (_with(side="hold"), InvalidEvent, r"column 'side': value refused; got hold; expected buy \| sell"),
        (_nanos(-1), InvalidEvent, "nanos are out of range; got -1"),
        (_nanos(10**9), InvalidEvent, "nanos are out of range"),
        (_nanos(0, 10**10), InvalidEvent, "1677 to 2262"),
        (_any("eventlab.dev/user.never", b"", "never"), UnknownEventType, "unknown event type; got never"),
        (_any("eventlab.dev/user.other", b""), InvalidEvent, "another payload"),
        (_any("eventlab.dev/user.funding", b"", "funding"), InvalidEvent, "another payload"),
        (_any(OWN, b"\x0a\x05A"), InvalidEvent, "not a payload of 'protobuf_liquidation'"),
        (_any(OWN, b"\x0a\x01\xff"), InvalidEvent, "not a payload"),
        (_any(OWN, b"\x0a\x01A\x30\x01"), SchemaMismatch, "written with other fields"),
        (_any(OWN, b"\x0a\x01A", schema_version=1), SchemaMismatch, "another schema version; got 1; expected 2"),
    ],
)
def test_a_refused_message_is_named_by_number_and_byte(message, error, match):
    good = written(trade_message())
    with pytest.raises(error, match=rf"^message 2 at byte {2 * len(good)}: .*{match}"):
        decode(good * 2 + written(message) + good)


TWO = {"aggregate_id": ["a", "b"], "timestamp": [0, 1], "symbol": ["A", "B"], "rate": [0.1, 0.2]}


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"rate": [0.1, float("inf")]}, "row 1, column 'rate': value refused; got inf"),
        ({"surplus": [1, 2]}, "no column 'surplus'"),
        ({"timestamp": [0, None]}, "row 1, column 'timestamp': null"),
        ({"aggregate_id": ["a", None]}, "row 1, column 'aggregate_id'"),
        ({"aggregate_id": ["", "b"]}, "row 0, column 'aggregate_id'"),
        ({"aggregate_id": [1, 2]}, "column 'aggregate_id' has the wrong type"),
        ({"version": [1, 0]}, "row 1, column 'version': value refused; got 0; expected an int64 from 1"),
        ({"position": [-1, 0]}, "row 0, column 'position'"),
        ({"cause": pl.Series([None, 2**63], dtype=pl.UInt64)}, "row 1, column 'cause'"),
        ({"cause": [0.5, 1.5]}, "column 'cause' has the wrong type"),
        ({"metadata": ["{}", "{"]}, "row 1: metadata cannot be read"),
        ({"metadata": [None, '{"a":1}']}, "row 1: metadata cannot be read; got .*a JSON object with strings"),
        ({"metadata": [None, "[" * 100_000]}, "row 1: metadata cannot be read"),
        ({"metadata": [None, '{"a":"\\ud800"}']}, "row 1: metadata cannot be read"),
    ],
)
def test_a_frame_that_cannot_travel_is_refused(columns, match):
    with pytest.raises(InvalidEvent, match=match):
        stream(FUNDING, pl.DataFrame(TWO | columns))


@pytest.mark.parametrize("name", ["aggregate_id", "timestamp"])
def test_an_envelope_needs_its_columns(name):
    with pytest.raises(InvalidEvent, match=f"need a column '{name}'"):
        stream(FUNDING, pl.DataFrame(TWO).drop(name))


def test_another_version_of_a_built_in_type_is_not_passed_off_as_it():
    older = EventType.from_schema_json(TRADE.schema_json().replace('"schema_version":1', '"schema_version":2'))
    with pytest.raises(SchemaMismatch, match="differs from the built-in type"):
        stream(older, pl.DataFrame(TWO))


def test_a_stores_own_types_are_looked_at_before_the_processs():
    stored = EventType.from_schema_json(LIQUIDATION.schema_json().replace('"schema_version":2', '"schema_version":5'))
    frame = pl.DataFrame({"aggregate_id": "a", "timestamp": [0], "symbol": "A", "price": 1.0})
    data = stream(stored, frame)
    assert list(decode(data, types={stored.name: stored})) == ["protobuf_liquidation"]
    with pytest.raises(SchemaMismatch, match="got 5; expected 2"):
        decode(data)


def test_streams_through_gzip_and_pipes(tmp_path):
    frame = pl.DataFrame({"aggregate_id": "a", "timestamp": range(3000), "symbol": "A", "rate": 0.25})
    with gzip.open(tmp_path / "events.gz", "wb") as file:
        assert dump([(FUNDING, frame)], file) == 3000
    with gzip.open(tmp_path / "events.gz", "rb") as file:
        assert pl.concat([piece for _, piece in load(file)])["rate"].sum() == 750
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as source:
        writer = threading.Thread(target=_written_to, args=(write, stream(FUNDING, frame)))
        writer.start()
        found = pl.concat([piece for _, piece in load(source, chunk=1000)])
        writer.join()
    assert found["timestamp"].to_physical().to_list() == list(range(3000))


def _written_to(descriptor: int, data: bytes) -> None:
    with os.fdopen(descriptor, "wb") as sink:
        sink.write(data)


def test_a_text_file_is_no_stream():
    with pytest.raises(InvalidEvent, match='mode "rb"'):
        list(load(io.StringIO("text")))
    with pytest.raises(InvalidEvent, match="chunk must be positive"):
        list(load(io.BytesIO(), chunk=0))


def test_an_empty_stream_is_no_events():
    assert decode(b"") == {}
    assert dump([], io.BytesIO()) == 0
