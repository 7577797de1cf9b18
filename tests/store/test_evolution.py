"""Event types evolve: what an older version wrote reads as the declared one, wherever it lies, however it is asked."""

# ruff: noqa: N806  a class made by a function keeps its name

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import DuplicateEvent, MissingUpcaster, SchemaMismatch, UpcastError
from eventlab.events import types as event_types
from eventlab.events import upcast as upcasting
from eventlab.events.types import EventType, event_type
from eventlab.store.api import Selection
from eventlab.store.commit import writer
from eventlab.store.read.select import upcast_for
from eventlab.testing.events import folded
from tests.events.strategies import same_bits
from tests.store import older

ROOT = Path(__file__).parents[2]
SIDES = {"buy": "long", "sell": "short"}


@pytest.fixture(autouse=True)
def _own_declarations(monkeypatch):
    monkeypatch.setattr(upcasting, "_declared", {})
    monkeypatch.setattr(event_types, "_registry", dict(event_types._registry))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A store written by a process that knows version 1 only."""
    path = tmp_path_factory.mktemp("older") / "lab"
    subprocess.run([sys.executable, "-m", "tests.store.older", str(path)], check=True, cwd=ROOT)
    return path


@pytest.fixture
def old_store(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "lab"))


def first_version() -> type[Any]:
    @el.event
    class Liquidation:
        symbol: el.Symbol
        price: float
        size: float
        side: Literal["buy", "sell"]
        note: str | None = None

    return Liquidation


def second_version() -> type[Any]:
    """One field renamed, one computed of two, a vocabulary changed, and an upcaster for all of it."""

    @el.event(schema_version=2)
    class Liquidation:
        symbol: el.Symbol
        notional: float
        quantity: float
        side: Literal["long", "short"]
        note: str | None = None

    @el.upcast(Liquidation, from_=1)
    def to_second(frame):
        return {
            "notional": pl.col("price") * pl.col("size"),
            "quantity": pl.col("size"),
            "side": pl.col("side").replace(SIDES),
            "price": None,
            "size": None,
        }

    return Liquidation


def third_version() -> type[Any]:
    """A field retyped, and one more with a default."""
    second_version()

    @el.event(schema_version=3)
    class Liquidation:
        symbol: el.Symbol
        notional: float
        quantity: str
        side: Literal["long", "short"]
        note: str | None = None
        venue: str = "here"

    @el.upcast(Liquidation, from_=2)
    def to_third(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(pl.col("quantity").cast(pl.String))

    return Liquidation


def totals() -> Any:
    """Folds both versions' events with all others of the aggregate, order and text included."""

    @el.reducer
    class Totals:
        notional: float = 0.0
        mixed: float = 1.0
        longs: int = 0
        signals: int = 0
        last: str = ""
        by = el.Keyed("note", count=int)

        def on_liquidation(state, event):
            state.notional += event.notional
            state.mixed = state.mixed * 0.5 + event.quantity + event.version
            if event.side == "long":
                state.longs += 1
            state.last = event.symbol
            if event.note is not None:
                state.by[event.note].count += 1

        def on_trading_signal(state, event):
            state.mixed = state.mixed * 0.25 - event.strength
            state.signals += 1

    return Totals


def as_second(frame: pl.DataFrame) -> pl.DataFrame:
    """What version 2 should make of version 1's rows."""
    rows = [
        {**row, "notional": row["price"] * row["size"], "quantity": row["size"], "side": SIDES[row["side"]]}
        for row in frame.to_dicts()
    ]
    schema = event_type("liquidation").polars_schema
    return pl.DataFrame(rows, infer_schema_length=None).select(pl.col(n).cast(t) for n, t in schema.items())


def payload(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(list(event_type("liquidation").polars_schema))


# -- a store of another process


def test_a_store_of_an_older_process_reads_as_the_declared_version(old_store: Path):
    Liquidation = second_version()
    reducer = totals()
    with el.open(old_store) as lab:
        before = lab.verify()
        events = lab.events(Liquidation)
        tail = pl.DataFrame(
            {
                "symbol": ["S0", "S1", "S1", "S0"],
                "price": [7.0, -0.0, 5e-324, 9.0],
                "size": [2.0, 1.0, 1.0, 3.0],
                "side": ["sell", "buy", "sell", "buy"],
                "note": ["sealed", None, None, "tail"],
            }
        )
        expected = as_second(pl.concat([older.bulk().drop("timestamp"), tail]))
        assert same_bits(payload(events), expected)
        assert events.filter(pl.col("note") == "sealed")["cause"].to_list() == [3]
        everything = lab.events(Liquidation, columns=["metadata", "event_id", "quantity", "event_type"])
        assert everything["metadata"].drop_nulls().to_list() == ['{"by":"old"}'] * 2
        assert everything["event_id"].to_list()[older.ROWS] == "first"
        states = lab.states(reducer, "liquidations/*")
        assert states["notional"].sum() == pytest.approx(expected["notional"].sum())
        lab.append("liquidations/S0", Liquidation("S0", 1.5, 1.0, "long", "new"))
        after = lab.verify()
        assert (before.events, before.commits) == (after.events - 1, after.commits - 1)
        assert lab.events(Liquidation)["notional"].to_list()[-1] == 1.5
        assert {name: declared.schema_version for name, declared in lab.store.types().items()} == {
            "liquidation": 2,
            "trading_signal": 1,
        }


def test_two_versions_later_every_place_still_reads_alike(old_store: Path):
    Second = second_version()
    with el.open(old_store) as lab:
        lab.append("liquidations/S0", [Second("S0", 1.5, 1.25, "long", "between")] * 2)
        as_two = lab.events(Second)
    Third = third_version()
    with el.open(old_store) as lab:
        lab.append("liquidations/S0", Third("S0", 2.5, "2.0", "short", "new", "there"))
        events = lab.events(Third)
        assert events["venue"].to_list() == ["here"] * (len(events) - 1) + ["there"]
        assert events["quantity"].to_list() == [*as_two["quantity"].cast(pl.String), "2.0"]
        assert same_bits(events.head(-1).drop("quantity", "venue"), as_two.drop("quantity"))
        digest = lab.verify().head
        lab.seal()
        assert lab.verify().head == digest
        assert same_bits(lab.events(Third), events)
    with el.open(old_store, read_only=True) as lab:
        assert same_bits(lab.events(Third), events)
        assert same_bits(lab.scan(Third).collect(), events)


def test_the_digest_is_what_the_older_process_left(old_store: Path):
    with el.open(old_store, read_only=True) as lab:
        first_version()
        untouched = lab.verify()
    third_version()
    with el.open(old_store) as lab:
        assert lab.verify() == untouched
        lab.seal()
        assert lab.verify().head == untouched.head


def test_queries_push_down_through_an_upcaster(old_store: Path):
    Liquidation = second_version()
    with el.open(old_store) as lab:
        lab.append("liquidations/S2", [Liquidation("S2", 4.0, 2.0, "short")] * 2)
        events = lab.events(Liquidation)
        middle = events["timestamp"][4_500]
        for condition in (
            pl.col("timestamp") >= middle,
            (pl.col("timestamp") < middle) & (pl.col("side") == "short"),
            pl.col("aggregate_id") == "liquidations/S2",
            pl.col("notional") < 60.0,
        ):
            lazy = lab.scan(Liquidation).filter(condition)
            assert lazy.collect().equals(events.filter(condition))
            assert (
                lazy.select("quantity", "version")
                .collect()
                .equals(events.filter(condition).select("quantity", "version"))
            )
        assert lab.scan(Liquidation).select(pl.len()).collect().item() == len(events)
        one = lab.events(Liquidation, "liquidations/S2", start=middle, columns=["position", "notional"])
        wanted = events.filter((pl.col("aggregate_id") == "liquidations/S2") & (pl.col("timestamp") >= middle))
        assert one.equals(wanted.select("position", "notional"))


def test_an_event_is_found_by_its_id_in_the_declared_version(old_store: Path):
    Liquidation = second_version()
    with el.open(old_store) as lab:
        supplied = lab.events(event_id="first")
        assert supplied["notional"].to_list() == [14.0]
        computed = lab.events(Liquidation, "liquidations/S1", columns=["event_id", "notional"])
        last = computed.row(-1)
        assert lab.events(event_id=last[0], columns=["notional"]).row(0) == last[1:]


# -- wherever the events lie


ROW = st.tuples(
    st.sampled_from(["a", "b"]),
    st.sampled_from(["AA", "BB", "Ω"]),
    st.floats(-1e6, 1e6),
    st.floats(-1e6, 1e6),
    st.sampled_from(["buy", "sell"]),
    st.none() | st.sampled_from(["", "x", "y"]),
)
STEP = st.one_of(
    st.tuples(st.just("append"), st.lists(ROW, min_size=1, max_size=6)),
    st.tuples(st.just("signal"), st.sampled_from(["a", "b"])),
    st.tuples(st.sampled_from(["seal", "reopen", "vacuum"]), st.none()),
)


@settings(max_examples=50)
@given(
    before=st.lists(STEP, max_size=6),
    after=st.lists(STEP, max_size=5),
    bulk=st.sampled_from([1, 4, 8_192]),
    after_version=st.integers(0, 8),
    stop=st.none() | st.integers(0, 20),
)
def test_states_and_events_are_those_of_a_store_of_the_new_version(
    tmp_path_factory, before, after, bulk, after_version, stop
):
    """Version 1 first, version 2 from some point on, sealed and reopened anywhere: as if all had been version 2."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "BULK_ROWS", bulk)
        patch.setattr(upcasting, "_declared", {})
        First, Second = first_version(), second_version()
        reducer, folder = totals(), tmp_path_factory.mktemp("mixed")
        clock = iter(range(1_000, 10**9))

        def opened(name: str) -> el.Lab:
            return el.open(":memory:" if name == "new" else folder / name, clock=lambda: next(clock))

        labs = {"mixed": opened("mixed"), "new": opened("new")}
        moment = 0
        for made, steps in ((First, before), (Second, after)):
            for step, given_rows in steps:
                moment += 1
                for name, lab in labs.items():
                    if step == "append":
                        with lab.commit() as group:
                            for aggregate, symbol, price, size, side, note in given_rows:
                                new = Second(symbol, price * size, size, SIDES[side], note)
                                event = First(symbol, price, size, side, note) if made is First else new
                                group.append(aggregate, new if name == "new" else event, timestamp=moment)
                    elif step == "signal":
                        signal = el.TradingSignal("AA", "buy", float(moment), "s")
                        lab.append(given_rows, signal, timestamp=moment)
                    elif step != "reopen":
                        getattr(lab, step)()
                    elif name == "mixed":
                        lab.close()
                        labs[name] = opened(name)
        mixed, new = labs["mixed"], labs["new"]
        try:
            columns = ["position", "aggregate_id", "version", "timestamp", *event_type(Second).polars_schema, "cause"]
            assert same_bits(mixed.events(Second, columns=columns), new.events(Second, columns=columns))
            assert mixed.states(reducer).drop("timestamp").equals(new.states(reducer).drop("timestamp"))
            for aggregate in mixed.store.aggregate_ids():
                head = mixed.store.heads([aggregate])[0].version
                past = mixed.history(reducer, aggregate, tables=True)
                assert past.equals(new.history(reducer, aggregate, tables=True))
                for version in {1, (head + 1) // 2, head}:
                    one, two = (lab.state(reducer, aggregate, version, interpret=True) for lab in (mixed, new))
                    assert one.digest == two.digest
            floors = {"a": after_version, "b": after_version // 2}
            columns_of = {"liquidation": ["notional", "note"]}
            for aggregates in (None, ["a"], ["b", "a"]):
                selection = Selection(
                    columns_of, others=True, aggregates=aggregates, after_version=floors, stop_position=stop
                )
                seen, wanted = folded(mixed.store, selection), folded(new.store, selection)
                assert seen == wanted
            mixed.verify()
        finally:
            mixed.close()
            new.close()


@pytest.mark.parametrize("interpret", [True, False])
def test_reducers_fold_both_versions_of_one_aggregate_in_version_order(interpret):
    First, Second = first_version(), second_version()
    reducer = totals()
    lab = el.open(":memory:")
    for round_ in range(3):
        made = First("A", 2.0, 1.0, "buy", "o") if round_ < 2 else Second("A", 3.0, 2.0, "short", "n")
        lab.append("a", [made, el.TradingSignal("A", "buy", 1.0, "s"), made])
    by_hand = 1.0
    for version in range(1, 10):
        quantity = 1.0 if version <= 6 else 2.0
        by_hand = by_hand * 0.25 - 1.0 if version % 3 == 2 else by_hand * 0.5 + quantity + version
    for seal in (False, True):
        if seal:
            lab.seal()
        state = lab.state(reducer, "a", interpret=interpret)
        assert (state.mixed, state.notional, state.longs, state.signals) == (by_hand, 14.0, 4, 3)
        assert state.by["count"].to_list() == [4, 2]


# -- appending


def test_appending_again_is_known_again_across_versions():
    First, Second = first_version(), second_version()
    lab = el.open(":memory:")
    ids = ["x", "y"]
    first = lab.append("a", [First("A", 2.0, 3.0, "buy"), First("B", 4.0, 0.5, "sell")], event_id=ids, timestamp=5)
    again = [Second("A", 6.0, 3.0, "long"), Second("B", 2.0, 0.5, "short")]
    assert lab.append("a", again, event_id=ids, timestamp=5) == first
    lab.seal()
    assert lab.append("a", again, event_id=ids, timestamp=5) == first
    assert lab.store.types()["liquidation"].schema_version == 1
    with pytest.raises(DuplicateEvent, match="another notional"):
        lab.append("a", [again[0], Second("B", 2.5, 0.5, "short")], event_id=ids, timestamp=5)


def test_an_older_version_is_refused_once_the_store_has_a_newer_one():
    First = first_version()

    @el.reducer
    class OfFirst:
        price: float = 0.0

        def on_liquidation(state, event):
            state.price += event.price

    Second = second_version()
    lab = el.open(":memory:")
    lab.append("a", First("A", 1.0, 1.0, "buy"))
    assert lab.state(OfFirst, "a").price == 1.0
    lab.append("a", Second("A", 1.0, 1.0, "long"))
    for append in (
        lambda: lab.append("a", First("A", 1.0, 1.0, "buy")),
        lambda: lab.append_frame(First, pl.DataFrame({"symbol": ["A"]}), aggregate_id="a"),
        lambda: lab.store.register(event_type(First)),
        lambda: lab.events(First),
        lambda: lab.scan(First),
        lambda: lab.on(First),
        lambda: lab.state(OfFirst, "a"),
    ):
        with pytest.raises(SchemaMismatch, match="schema_version 2 of 'liquidation', newer.*Update the code"):
            append()
    assert lab.store.stop_position == 2


def test_a_process_that_still_writes_the_older_version_is_refused_by_what_another_wrote(old_store: Path):
    First, Second = first_version(), second_version()
    with el.open(old_store) as older_process, el.open(old_store) as newer_process:
        older_process.append("a", First("A", 1.0, 1.0, "buy"))
        newer_process.append("a", Second("A", 2.0, 1.0, "long"))
        with pytest.raises(SchemaMismatch, match="newer"):
            older_process.append("a", First("A", 1.0, 1.0, "buy"))
        newer_process.append("a", Second("A", 3.0, 1.0, "long"))
        with pytest.raises(SchemaMismatch, match="newer"):
            older_process.append_frame(First, older.bulk(), aggregate_id="b")
        assert older_process.events(Second, "a")["notional"].to_list() == [1.0, 2.0, 3.0]
        assert older_process.verify() == newer_process.verify()


def test_one_commit_has_one_version_of_a_type():
    First, Second = first_version(), second_version()
    lab = el.open(":memory:")
    group = lab.commit()
    group.append("a", First("A", 1.0, 1.0, "buy"))
    group.append("b", Second("A", 1.0, 1.0, "long"))
    with pytest.raises(SchemaMismatch, match="in two versions"), group:
        pass
    assert lab.store.stop_position == 0
    assert not lab.store.types()


def test_other_fields_under_the_same_version_are_refused_as_ever():
    lab = el.open(":memory:")
    lab.append("a", first_version()("A", 1.0, 1.0, "buy"))

    @el.event
    class Liquidation:
        symbol: el.Symbol

    @el.reducer
    class Counted:
        n: int = 0

        def on_liquidation(state, event):
            state.n += event.symbol == "A"

    for read in (
        lambda: lab.events(Liquidation),
        lambda: lab.append("a", Liquidation("A")),
        lambda: lab.state(Counted, "a"),
    ):
        with pytest.raises(SchemaMismatch, match="other fields"):
            read()
    assert lab.events("liquidation")["price"].to_list() == [1.0]


def test_a_type_may_be_registered_in_its_next_version(old_store: Path):
    Liquidation = second_version()
    with el.open(old_store, read_only=True) as lab, pytest.raises(el.errors.ReadOnlyStore):
        lab.store.register(event_type(Liquidation))
    with el.open(old_store) as lab:
        lab.store.register(event_type(Liquidation))
        lab.store.register(event_type(Liquidation))
        assert lab.store.types()["liquidation"] == event_type(Liquidation)
        assert len(lab.events(Liquidation)) == older.ROWS + 4


# -- missing and failing upcasters


def test_a_missing_upcaster_is_named_at_once_and_envelopes_stay_readable(old_store: Path):
    Liquidation = second_version()
    reducer = totals()
    upcasting._declared.clear()
    with el.open(old_store) as lab:
        lab.append("elsewhere", Liquidation("A", 1.0, 1.0, "long"))
        for read in (
            lambda: lab.events(Liquidation),
            lambda: lab.events(Liquidation, "elsewhere"),
            lambda: lab.scan(Liquidation).collect(),
            lambda: lab.state(reducer, "liquidations/S0"),
            lambda: lab.states(reducer),
            lambda: lab.history(reducer, "elsewhere"),
            lambda: lab.snapshots.build(reducer),
            lambda: lab.projection(reducer).update(),
        ):
            with pytest.raises((MissingUpcaster, pl.exceptions.ComputeError), match="from_=1") as caught:
                read()
            assert "'liquidation' are stored with schema_version 1 and read as 2" in str(caught.value)
        assert lab.events(Liquidation, columns=["position", "metadata"]).height == older.ROWS + 5
        assert lab.verify().events == older.ROWS + 6
        assert lab.events(el.TradingSignal).height == 1


def test_a_failing_upcaster_changes_nothing(old_store: Path):
    Liquidation = second_version()

    def broken(frame):
        raise KeyError("x")

    upcasting._declared.clear()
    el.upcast(Liquidation, from_=1)(broken)
    with el.open(old_store) as lab:
        with pytest.raises(UpcastError, match="'liquidation' from version 1 to 2 .*failed; got KeyError"):
            lab.events(Liquidation)
        lab.append("elsewhere", Liquidation("A", 1.0, 1.0, "long"))
        assert lab.seal() > 0
        lab.verify()
        second_version()
        assert lab.events(Liquidation).height == older.ROWS + 5


def test_named_by_a_string_a_type_is_the_newest_of_store_and_process(old_store: Path):
    del event_types._registry["liquidation"]
    with el.open(old_store) as lab:
        assert lab.events("liquidation").columns[4:8] == ["symbol", "price", "size", "side"]
    Second = second_version()
    with el.open(old_store) as lab:
        assert lab.events("liquidation").equals(lab.events(Second))
        lab.append("a", Second("A", 1.0, 1.0, "long"))
    upcasting._declared.clear()
    del event_types._registry["liquidation"]
    with el.open(old_store) as lab, pytest.raises(MissingUpcaster, match="from version 1"):
        lab.events("liquidation")
    first_version()
    with el.open(old_store) as lab, pytest.raises(MissingUpcaster, match="from version 1"):
        lab.events("liquidation")


def test_types_that_did_not_change_cost_nothing():
    declared = event_type(second_version())
    again = EventType.from_schema_json(declared.schema_json())
    assert upcast_for(declared, declared, ["notional"]).declared is declared
    assert upcast_for(again, declared, ["notional"]).declared is again
    assert upcast_for(declared, None, ["notional"]).declared is declared
    first = event_type(first_version())
    assert upcast_for(first, declared, ()).declared is first


# -- what is derived


def test_snapshots_of_other_upcasters_are_not_used(old_store: Path):
    Liquidation = second_version()
    reducer = totals()
    with el.open(old_store) as lab:
        lab.snapshots.policy = el.snapshots.Every(500)
        assert lab.snapshots.build(reducer).snapshots > 0
        notional = lab.state(reducer, "liquidations/S0").notional
        assert lab.snapshots.verify().equal > 0

        def doubled(frame):
            return {**to_second(frame), "notional": pl.col("price") * pl.col("size") * 2.0}

        to_second = upcasting._declared.pop(("liquidation", 1)).function
        el.upcast(Liquidation, from_=1)(doubled)
        assert not lab.snapshots.table().filter(pl.col("reducer") == "Totals")["usable"].any()
        assert lab.state(reducer, "liquidations/S0").notional == pytest.approx(2 * notional)
        assert lab.snapshots.build(reducer).snapshots > 0
        upcasting._declared.clear()
        el.upcast(Liquidation, from_=1)(to_second)
        assert lab.state(reducer, "liquidations/S0").notional == notional


def test_a_projection_of_other_upcasters_is_built_anew(old_store: Path):
    Liquidation = second_version()
    reducer = totals()
    with el.open(old_store) as lab:
        projection = lab.projection(reducer)
        projection.update()
        notional = projection.state("liquidations/S0").notional
        kept = upcasting._declared.pop(("liquidation", 1)).function

        def doubled(frame):
            return {**kept(frame), "notional": pl.col("price") * pl.col("size") * 2.0}

        el.upcast(Liquidation, from_=1)(doubled)
        anew = lab.projection(reducer)
        anew.update()
        assert anew.state("liquidations/S0").notional == pytest.approx(2 * notional)


def test_handlers_that_begin_in_the_past_get_the_declared_version(old_store: Path):
    Liquidation = second_version()
    seen: list[pl.DataFrame] = []
    with el.open(old_store) as lab:
        lab.on(Liquidation, start=0)(seen.append)
        lab.append("a", Liquidation("A", 1.0, 1.0, "long"))
        assert pl.concat(seen).equals(lab.events(Liquidation))


def test_an_export_is_of_the_declared_version(old_store: Path):
    Liquidation = second_version()
    file = io.BytesIO()
    with el.open(old_store) as lab:
        lab.append("a", Liquidation("A", 1.0, 1.0, "long"))
        events = lab.events(Liquidation)
    el.protobuf.dump([(Liquidation, events)], file)
    file.seek(0)
    found = pl.concat([frame for _, frame in el.protobuf.load(file)])
    assert same_bits(payload(found), payload(events))
