"""Event types: declared by classes, remembered by stores, refused where they could not be stored."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from typing import Annotated, ClassVar, Literal, Optional

import pytest
from hypothesis import given

from eventlab.errors import InvalidEvent, SchemaMismatch, UnknownEventType
from eventlab.events import builtin
from eventlab.events.types import (
    REQUIRED,
    EventType,
    Limits,
    Symbol,
    declared_types,
    event,
    event_type,
)
from tests.events.strategies import BUILTIN_NAMES, user_types


@event(schema_version=3)
class HTTPLiquidation2:
    """A user's own type, with a field of every kind."""

    symbol: Symbol
    price: Annotated[float, Limits(minimum=0.0, maximum=10.0)]
    count: int
    forced: bool
    note: str | None
    at_exchange: Optional[dt.datetime]  # noqa: UP045  the old spelling counts too
    side: Literal["long", "short"] | None = None
    leverage: float = 1.0
    VENUE: ClassVar[str] = "x"


DECLARED = event_type(HTTPLiquidation2)


def test_an_event_class_is_a_frozen_dataclass():
    made = HTTPLiquidation2("BTC", 1.0, 2, True, None, None)
    assert made == HTTPLiquidation2("BTC", 1.0, 2, True, None, None, side=None, leverage=1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.price = 2.0
    assert not hasattr(made, "__dict__")


def test_a_declaration_says_how_each_field_is_stored():
    assert DECLARED.name == "http_liquidation2"
    assert DECLARED.schema_version == 3
    assert [(f.name, f.kind, f.nullable) for f in DECLARED] == [
        ("symbol", "symbol", False),
        ("price", "float", False),
        ("count", "int", False),
        ("forced", "bool", False),
        ("note", "string", True),
        ("at_exchange", "time", True),
        ("side", "enum", True),
        ("leverage", "float", False),
    ]
    assert DECLARED.field("price").limits == Limits(0.0, 10.0)
    assert DECLARED.field("side").vocabulary == ("long", "short")
    assert [DECLARED.field(name).default for name in ("note", "side", "leverage")] == [REQUIRED, None, 1.0]
    with pytest.raises(InvalidEvent, match="no field 'prize'.*price"):
        DECLARED.field("prize")


def test_a_type_is_found_by_class_event_name_and_itself():
    made = HTTPLiquidation2("BTC", 1.0, 2, True, None, None)
    assert all(event_type(of) is DECLARED for of in (HTTPLiquidation2, made, "http_liquidation2", DECLARED))
    assert DECLARED in declared_types()
    for unknown in ("liquidations", 5, dict):
        with pytest.raises(UnknownEventType, match="market_data"):
            event_type(unknown)


def test_built_in_types_carry_their_public_names():
    assert {event_type(name).cls.__name__ for name in BUILTIN_NAMES} == {
        "MarketData", "Quote", "BookChange", "Bar", "Funding", "TradingSignal", "PortfolioChange",
    }  # fmt: skip
    assert event_type(builtin.MarketData).name == "market_data"


def test_a_schema_survives_the_registry():
    again = EventType.from_schema_json(DECLARED.schema_json())
    assert again == DECLARED
    assert hash(again) == hash(DECLARED)
    assert again.cls.__name__ == "HttpLiquidation2"
    assert again.cls(symbol="a", price=1.0, count=1, forced=False, note=None, at_exchange=None).leverage == 1.0


@given(user_types())
def test_any_schema_survives_the_registry(declared):
    again = EventType.from_schema_json(declared.schema_json())
    assert again == declared
    assert again.arrow_schema == declared.arrow_schema
    assert again.polars_schema == declared.polars_schema


@pytest.mark.parametrize(
    "change",
    [
        {"name": "__import__('os')"},
        {"name": "lambda"},
        {"name": 5},
        {"fields": 1},
        {"fields": [{"name": "x"}]},
        {"fields": [json.loads(DECLARED.schema_json())["fields"][0] | {"kind": "object"}]},
        {"fields": [json.loads(DECLARED.schema_json())["fields"][0] | {"name": "a=print('x')"}]},
    ],
)
def test_a_damaged_schema_is_refused_and_never_evaluated(change):
    with pytest.raises(InvalidEvent):
        EventType.from_schema_json(json.dumps(json.loads(DECLARED.schema_json()) | change))


def test_a_schema_must_be_json():
    with pytest.raises(InvalidEvent, match="not the schema"):
        EventType.from_schema_json("{")


def _refused(annotations: dict[str, object], match: str, name: str = "Refused", **defaults: object) -> None:
    cls = type(name, (), {"__annotations__": annotations, "__module__": __name__, **defaults})
    with pytest.raises(InvalidEvent, match=match):
        event(cls)
    with pytest.raises(UnknownEventType):
        event_type("refused")


@pytest.mark.parametrize("name", ["timestamp", "position", "recorded_at", "metadata", "at", "event_type"])
def test_envelope_names_are_taken(name):
    _refused({name: int}, "reserved for the envelope")


@pytest.mark.parametrize(
    "annotation", [list[float], dict, object, int | str, Literal[1, 2], Literal["a", 1], complex, dt.date, "Unknown"]
)
def test_annotations_that_no_column_holds(annotation):
    _refused({"value": annotation}, r"Refused.value: unsupported|cannot be read")


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (float, None),
        (float, "1"),
        (float, True),
        (float, float("nan")),
        (Annotated[float, Limits(minimum=0)], -1.0),
        (int, 1.5),
        (int, -(2**63)),
        (bool, 1),
        (str, 5),
        (Symbol, ""),
        (Literal["a"], "b"),
        (dt.datetime, dt.datetime(2024, 1, 1, tzinfo=dt.UTC)),
        (float, dataclasses.field(default_factory=float)),
    ],
)
def test_defaults_that_the_field_cannot_hold(annotation, default):
    _refused({"value": annotation}, r"Refused.value: invalid default", value=default)


@pytest.mark.parametrize(
    ("annotations", "defaults", "match"),
    [
        ({}, {}, "no fields"),
        ({"Value": float}, {}, "lower_snake_case"),
        ({"a": float, "b": float}, {"a": 1.0}, "cannot be declared"),
        ({"a": str}, {"a": []}, "cannot be declared"),
    ],
)
def test_classes_that_are_no_declaration(annotations, defaults, match):
    _refused(annotations, match, **defaults)


def test_an_unusable_class_name_is_refused():
    _refused({"value": float}, "lower_snake_case", name="Größe")


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.0])
def test_schema_versions_are_positive_integers(version):
    with pytest.raises(InvalidEvent, match="schema_version"):
        event(schema_version=version)(type("Refused", (), {"__annotations__": {"a": int}}))


def test_the_built_in_names_cannot_be_taken_over():
    with pytest.raises(SchemaMismatch, match="market_data"):
        event(type("MarketData", (), {"__annotations__": {"price": float}, "__module__": __name__}))
    assert event_type("market_data").cls is builtin.MarketData


def test_a_notebook_cell_may_be_run_twice():
    def declare() -> type:
        return event(type("Rerun", (), {"__annotations__": {"value": float}, "__module__": __name__}))

    assert event_type(declare()) == event_type(declare())


def test_an_inherited_default_is_kept():
    base = type("Base", (), {"__annotations__": {"value": float}, "value": 2.0, "__module__": __name__})
    event(base)
    derived = event(type("Derived", (base,), {"__annotations__": {"more": int}, "more": 1, "__module__": __name__}))
    assert [(field.name, field.default) for field in event_type(derived)] == [("value", 2.0), ("more", 1)]


def test_annotations_may_name_what_a_function_imported():
    from eventlab.events.types import Symbol as Instrument

    @event
    class Localized:
        symbol: Instrument
        price: float = 1.0

    @event(schema_version=2)
    class LocalizedToo:
        symbol: Instrument

    assert [field.kind for made in (Localized, LocalizedToo) for field in event_type(made)] == [
        "symbol",
        "float",
        "symbol",
    ]
