"""Upcasters: declared, checked, and run on columns; refused where they could give another answer another time."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import MissingUpcaster, SchemaMismatch, UnknownEventType, UpcastError
from eventlab.events import upcast as upcasting
from eventlab.events.columns import payload_from_frame
from eventlab.events.types import EventType, Field, Limits, event, event_type
from eventlab.events.upcast import check_readable, columns_needed, upcast, upcast_columns, upcasters
from tests.events.strategies import payloads, user_types


@pytest.fixture(autouse=True)
def _own_upcasters(monkeypatch):
    monkeypatch.setattr(upcasting, "_declared", {})


def version(number: int, /, **annotations: Any) -> EventType:
    """Version `number` of the type "thing", declared now; a field is its annotation, or that and a default."""
    fields = {name: value if isinstance(value, tuple) else (value,) for name, value in annotations.items()}
    space = {
        "__annotations__": {name: annotation for name, (annotation, *_) in fields.items()},
        "__module__": __name__,
        **{name: default for name, (_, *rest) in fields.items() for default in rest},
    }
    return event_type(event(schema_version=number)(type("Thing", (), space)))


def read(stored: EventType, declared: EventType, rows: list[dict[str, Any]], *columns: str) -> list[dict[str, Any]]:
    """Rows of the stored version as the declared one."""
    batch = payload_from_frame(stored, pl.DataFrame(rows, schema=pl.Schema(stored.polars_schema)))
    wanted = columns or tuple(field.name for field in declared)
    payload = {name: batch.column(name) for name in columns_needed(stored, declared, wanted)}
    made = upcast_columns(stored, declared, payload, wanted, len(rows))
    for name, column in made.items():
        assert column.type == declared.field(name).arrow_type
    return pa.Table.from_pydict(made).to_pylist()


# -- without an upcaster


def test_added_fields_get_their_defaults_and_wider_ones_stay_as_they_are():
    old = version(1, x=Annotated[float, Limits(0, 1)], side=Literal["buy", "sell"], note=str)
    new = version(
        4,
        side=Literal["none", "sell", "buy"],
        x=Annotated[float, Limits(0, 2)],
        note=str | None,
        fee=(float, 0.5),
        venue=(el.Symbol, "here"),
        kind=(Literal["a", "b"] | None, None),
        count=(int, 7),
        sure=(bool, True),
    )
    found = read(old, new, [{"x": 0.5, "side": "buy", "note": "n"}, {"x": 1.0, "side": "sell", "note": ""}])
    defaults = {"fee": 0.5, "venue": "here", "kind": None, "count": 7, "sure": True}
    assert found == [
        {"x": 0.5, "side": "buy", "note": "n", **defaults},
        {"x": 1.0, "side": "sell", "note": "", **defaults},
    ]
    assert read(old, new, [{"x": 0.5, "side": "buy", "note": "n"}], "fee", "side") == [{"fee": 0.5, "side": "buy"}]
    assert columns_needed(old, new, ("fee", "side")) == ("side",)


_NARROW = "could hold more"


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ({"x": float, "y": float}, {"x": float}, "'y' is gone"),
        ({"x": float}, {"x": float, "y": float}, "'y' is new and has no default"),
        ({"x": float}, {"y": float}, r"'x' is gone; field 'y' is new.*pl.col\(\"x\"\), \"x\": None"),
        ({"x": int}, {"x": float}, "'x' was int and is float"),
        ({"x": str}, {"x": el.Symbol}, "'x' was string and is symbol"),
        ({"x": int}, {"x": dt.datetime}, "'x' was int and is time"),
        ({"x": float | None}, {"x": float}, "'x' could be null"),
        ({"x": float}, {"x": Annotated[float, Limits(minimum=0)]}, _NARROW),
        ({"x": Annotated[int, Limits(maximum=9)]}, {"x": Annotated[int, Limits(maximum=8)]}, _NARROW),
        ({"x": Literal["a", "b"]}, {"x": Literal["b", "c"]}, _NARROW),
    ],
)
def test_any_other_change_asks_for_an_upcaster(old, new, match):
    stored, declared = version(1, **old), version(2, **new)
    with pytest.raises(MissingUpcaster, match=match) as caught:
        check_readable(stored, declared)
    message = str(caught.value)
    assert "'thing' are stored with schema_version 1 and read as 2" in message
    assert "@el.upcast(Thing, from_=1)" in message
    assert isinstance(caught.value, SchemaMismatch)
    upcast("thing", from_=1)(lambda frame: frame)
    check_readable(stored, declared)


def test_one_version_with_other_fields_and_a_newer_one_are_distinguished():
    stored, declared = version(2, x=float), version(2, x=int)
    with pytest.raises(SchemaMismatch, match="other fields"):
        check_readable(stored, declared)
    with pytest.raises(SchemaMismatch, match="schema_version 2 of .*newer"):
        check_readable(stored, version(1, x=float))
    check_readable(stored, version(2, x=float))


# -- with upcasters


def test_a_mapping_replaces_adds_and_drops_and_the_rest_stays():
    old = version(1, price=float, size=float, side=Literal["buy", "sell"] | None, at_exchange=dt.datetime, note=str)
    new = version(2, notional=float, side=Literal["long", "short"] | None, at_exchange=dt.datetime, note=el.Symbol)
    seen = []

    @upcast("thing", from_=1)
    def _(frame):
        seen.append(frame.schema)
        return {
            "notional": pl.col("price") * pl.col("size"),
            "side": pl.col("side").replace({"buy": "long", "sell": "short"}),
            "price": None,
            "size": None,
        }

    when = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    rows = [
        {"price": 2.0, "size": 3.0, "side": "buy", "at_exchange": when, "note": "n"},
        {"price": -0.0, "size": 3.0, "side": None, "at_exchange": when, "note": "m"},
    ]
    found = read(old, new, rows)
    assert [(str(row["notional"]), row["side"], row["note"]) for row in found] == [
        ("6.0", "long", "n"),
        ("-0.0", None, "m"),
    ]
    assert {row["at_exchange"] for row in found} == {when}
    assert dict(seen[0]) == {
        "price": pl.Float64, "size": pl.Float64, "side": pl.String, "at_exchange": pl.Datetime("ns", "UTC"),
        "note": pl.String,
    }  # fmt: skip


@pytest.mark.parametrize("lazy", [False, True])
def test_a_frame_gives_all_columns_and_defaults_fill_the_rest(lazy):
    old, new = version(1, x=int, y=int), version(2, z=int, word=(str, "w"))

    @upcast("thing", from_=1)
    def _(frame):
        made = (frame.lazy() if lazy else frame).select(z=pl.col("x") + pl.col("y"))
        return made.with_columns(pl.col("z").cast(pl.Int32))

    assert read(old, new, [{"x": 1, "y": 2}]) == [{"z": 3, "word": "w"}]
    assert read(old, new, [{"x": 1, "y": 2}], "word") == [{"word": "w"}]
    assert columns_needed(old, new, ("word",)) == ("x", "y")
    assert columns_needed(old, new, ("z",)) == ("x", "y")


def test_a_chain_goes_version_by_version():
    first = version(1, x=int)
    last = version(4, w=int)
    order = []
    for from_, (before, after) in {3: ("z", "w"), 1: ("x", "y"), 2: ("y", "z")}.items():

        @upcast("thing", from_=from_)
        def _(frame, before=before, after=after, from_=from_):
            order.append(from_)
            return {after: pl.col(before) * 10 + from_, before: None}

    assert [step.from_ for step in upcasters(last)] == [1, 2, 3]
    assert [step.from_ for step in upcasters(last, 3)] == [3]
    assert read(first, last, [{"x": 5}]) == [{"w": 5123}]
    assert order == [1, 2, 3]


def test_steps_that_only_add_defaults_may_be_left_out_anywhere():
    # 1 -> 2 adds b, 2 -> 3 renames a to c, 3 -> 4 adds d
    first, second = version(1, a=int), version(2, a=int, b=(int, 1))
    last = version(4, c=int, b=(int, 1), d=(int, 2))

    @upcast("thing", from_=2)
    def _(frame):
        return {"c": pl.col("a"), "a": None}

    assert read(first, last, [{"a": 5}]) == [{"c": 5, "b": 1, "d": 2}]
    assert read(second, last, [{"a": 5, "b": 6}]) == [{"c": 5, "b": 6, "d": 2}]


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        # 1 -> 2 changed p, which no upcaster knows; 2 -> 3 renamed a to c
        ({"a": int, "p": int}, {"c": int, "q": int}, "'p' is not a field"),
        ({"a": int}, {"c": int, "p": int}, "'p' is missing"),
        ({"a": int, "p": int}, {"c": int, "p": float}, "'p' is still int, not float"),
        ({"a": int, "p": int}, {"c": int, "p": dt.datetime}, "'p' is still int, not time"),
    ],
)
def test_a_step_left_out_that_was_needed_is_named(old, new, match):
    stored, declared = version(1, **old), version(3, **new)

    @upcast("thing", from_=2)
    def _(frame):
        return {"c": pl.col("a"), "a": None}

    rows = [dict.fromkeys(old, 1)]
    with pytest.raises(MissingUpcaster, match=f"there is no upcaster from version 1: column {match}"):
        read(stored, declared, rows)


def _exactly(column: pa.Array) -> list[str]:
    values = column.view(pa.int64()) if pa.types.is_timestamp(column.type) else column
    return [repr(value) for value in values.to_pylist()]  # which tells -0.0 from 0.0


@given(st.data())
def test_events_without_need_of_an_upcaster_read_like_new_appends(data):
    """The quick way against the slow one: columns as they are, and columns through the boundary of appending."""
    old = data.draw(user_types())
    wider = tuple(
        Field(f.name, f.kind, data.draw(st.booleans()) or f.nullable, Limits(), (*reversed(f.vocabulary), "more+")
              if f.vocabulary else ())
        for f in old
    )  # fmt: skip
    added = (Field("added_float", "float", default=0.5), Field("added_enum", "enum", True, Limits(), ("x",), None))
    new = EventType(old.name, data.draw(st.permutations((*wider, *added))), old.schema_version + 1, old.cls)
    frame = data.draw(payloads(old))
    stored = payload_from_frame(old, frame)
    payload = {name: stored.column(name) for name in stored.schema.names}
    wanted = tuple(field.name for field in new)
    quick = upcast_columns(old, new, payload, wanted, len(frame))
    slow = payload_from_frame(new, frame.with_columns(pl.col(pl.Enum).cast(pl.String)))
    for name in wanted:
        assert quick[name].type == slow.column(name).type
        assert _exactly(quick[name]) == _exactly(slow.column(name))
        if new.field(name).kind == "enum":
            assert quick[name].dictionary.to_pylist() == list(new.field(name).vocabulary)


# -- functions that cannot be upcasters


def _thing() -> tuple[EventType, EventType, list[dict[str, Any]]]:
    return version(1, x=float, y=float), version(2, x=float, z=float), [{"x": 3.0, "y": 1.0}, {"x": 2.0, "y": 5.0}]


def _zed(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.rename({"y": "z"})


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda frame: 1 / 0, "failed; got ZeroDivisionError"),
        (lambda frame: {"z": pl.col("gone"), "y": None}, "failed; got ColumnNotFoundError.*has the columns x, y"),
        (lambda frame: {"q": None}, "failed; got ColumnNotFoundError"),
        (lambda frame: None, "returned no columns; got NoneType"),
        (lambda frame: frame["x"], "returned no columns; got Series"),
        (lambda frame: {"z": 1.0, "y": None}, r"a mapping must have column names.*pl\.lit"),
        (lambda frame: {"z": "y", "y": None}, "a mapping must have column names"),
        (lambda frame: {1: pl.col("y")}, "a mapping must have column names"),
        (lambda frame: _zed(frame).head(1), "changed the number of rows; got 1; expected 2"),
        (lambda frame: frame.select(z=pl.lit(1.0), x=pl.lit(1.0)), "changed the number of rows"),
        (lambda frame: _zed(frame).filter(pl.col("x") > 2), "changed the number of rows"),
        (lambda frame: _zed(pl.concat([frame, frame])), "changed the number of rows"),
        (lambda frame: frame, "declared columns: column 'y' is not a field"),
        (lambda frame: {"y": None}, "declared columns: column 'z' is missing"),
        (lambda frame: _zed(frame).with_columns(z=pl.lit("a")), "do not fit 'thing': column 'z' has the wrong type"),
        (lambda frame: _zed(frame).with_columns(z=pl.lit(None, pl.Float64)), "do not fit .*: row 0, column 'z': null"),
        (lambda frame: _zed(frame).with_columns(z=pl.lit(float("nan"))), "do not fit 'thing': row 0, column 'z'"),
        (lambda frame: _zed(frame).sort("x"), "when other rows surround it"),
        (lambda frame: _zed(frame).reverse(), "when other rows surround it"),
        (lambda frame: {"z": pl.col("y").cum_sum(), "y": None}, "when other rows surround it"),
        (lambda frame: {"z": pl.col("y").shift(fill_value=0.0), "y": None}, "when other rows surround it"),
        (lambda frame: {"z": pl.col("y") / pl.col("y").sum(), "y": None}, "when other rows surround it"),
        (lambda frame: {"z": pl.col("y").mean(), "y": None}, "when other rows surround it"),
        (lambda frame: {"z": pl.int_range(pl.len()).cast(pl.Float64), "y": None}, "when other rows surround it"),
    ],
)
def test_a_wrong_result_names_type_versions_and_function(function, match):
    stored, declared, rows = _thing()
    upcast("thing", from_=1)(function)
    with pytest.raises(UpcastError, match=match) as caught:
        read(stored, declared, rows)
    assert "upcaster of 'thing' from version 1 to 2 (<lambda>, " in str(caught.value)
    assert "test_upcast.py:" in str(caught.value)


@pytest.mark.parametrize("rows", [2, 3, 10, 63, 64, 65, 1_000])
def test_a_row_that_depends_on_others_is_found_in_batches_of_any_size(rows):
    stored, declared, _ = _thing()
    values = [{"x": float(row), "y": float(row * row % 17)} for row in range(rows)]
    upcast("thing", from_=1)(_zed)
    assert len(read(stored, declared, values)) == rows
    upcasting._declared.clear()
    upcast("thing", from_=1)(lambda frame: _zed(frame).sort("x", descending=True))
    with pytest.raises(UpcastError, match="when other rows surround it"):
        read(stored, declared, values)


def test_another_answer_another_time_is_found():
    stored, declared, rows = _thing()
    calls = []

    @upcast("thing", from_=1)
    def _(frame):
        calls.append(1)
        return {"z": pl.lit(float(len(calls))), "y": None}

    with pytest.raises(UpcastError, match="when other rows surround it"):
        read(stored, declared, rows)


@pytest.mark.parametrize("from_", [0, -1, 2, 3, 1.0, True, "1", None])
def test_from_is_a_version_below_the_declared_one(from_):
    version(2, x=float)
    with pytest.raises(UpcastError, match="from_ must be below the schema_version of 'thing', which is 2"):
        upcast("thing", from_=from_)


def test_a_built_in_type_of_version_one_has_no_upcasters():
    with pytest.raises(UpcastError, match="market_data"):
        upcast(el.MarketData, from_=1)


@pytest.mark.parametrize("function", [lambda: None, lambda frame, more: None, 5, pl.col, object(), print])
def test_an_upcaster_is_a_function_of_one_frame(function):
    version(2, x=float)
    with pytest.raises(UpcastError, match="not an upcaster of 'thing'"):
        upcast("thing", from_=1)(function)
    assert upcasters(event_type("thing")) == ()


def test_a_type_must_be_declared_first():
    with pytest.raises(UnknownEventType, match="never_declared"):
        upcast("never_declared", from_=1)
    with pytest.raises(UnknownEventType):
        upcast(dict, from_=1)


def test_two_places_of_a_file_cannot_declare_one_step():
    declared = version(3, x=float)

    @upcast("thing", from_=1)
    def kept(frame):
        return frame

    with pytest.raises(UpcastError, match="declared twice.*_twin.*kept"):

        @upcast("thing", from_=1)
        def _twin(frame):
            return {}

    assert [step.function for step in upcasters(declared)] == [kept]
    upcast("thing", from_=2)(kept)


def test_a_cell_or_module_that_runs_again_redeclares():
    source = "def made(frame):\n    return {}\n"
    declared = version(2, x=float)
    scope: dict[str, Any] = {"__name__": "cell"}
    for cell in ("<cell 1>", "<cell 2>", "<cell 2>", "module.py", "module.py"):
        exec(compile(source, cell, "exec"), scope)
        upcast("thing", from_=1)(scope["made"])
        assert [step.function for step in upcasters(declared)] == [scope["made"]]
    version(2, x=float)  # the module is loaded again, with a line more before the function
    exec(compile("\n" + source, "module.py", "exec"), scope)
    upcast("thing", from_=1)(scope["made"])
    assert [step.function for step in upcasters(declared)] == [scope["made"]]


def test_the_decorated_function_stays_a_function():
    version(2, x=float)

    @upcast("thing", from_=1)
    def same(frame):
        return frame

    frame = pl.DataFrame({"x": [1.0]})
    assert same(frame) is frame
