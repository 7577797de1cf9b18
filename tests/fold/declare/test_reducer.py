"""What cannot be folded is refused when it is declared: naming the handler, its line, and what to write instead."""

from __future__ import annotations

import datetime as dt  # noqa: F401  one handler tries to use it
import math  # noqa: F401
import textwrap

import numpy as np  # noqa: F401
import pytest

import eventlab as el
from eventlab.errors import ReducerError
from tests.fold.helpers import folded, rows
from tests.fold.kitchen import Tick, Unheard  # noqa: F401  handlers are declared from text

FAR = 2**63
MUTABLE = [1, 2]


def countdown(n):
    return 0 if n == 0 else countdown(n - 1)


def ping(n):
    return pong(n)


def pong(n):
    return ping(n)


def starred(x, *, k=1.0):
    return x * k


def with_list(x, k=MUTABLE):
    return x


def writes(state):
    state.x = 1.0


class Refused(Exception):
    pass


def declared(body, *, fields="x: float = 0.0", name="on_tick", more="", extra=None):
    """Declare a reducer from text, as a notebook cell would."""
    source = f"class Made:\n    {fields}\n    def {name}(state, event):\n{textwrap.indent(body, ' ' * 8)}\n{more}"
    scope = {**globals(), **(extra or {})}
    exec(compile(source, "cell.py", "exec", dont_inherit=True), scope)
    return el.reducer(scope["Made"])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("state.x = event.x ** 2", r"on_tick \(cell.py:4\): operator \*\*.*x \* x"),
        ("state.x **= 2", r"operator \*\*="),
        ("state.x = 1 << event.n", "operator <<"),
        ("state.x = ~event.n", "operator ~"),
        ("state.x = sum((1.0, 2.0))", r"sum\(\) is not supported.*min\(\)"),
        ("print(event.x)", r"print\(\) is not supported"),
        ("state.x = round(event.x)", r"round\(\)"),
        ("state.x = nowhere", "'nowhere' is not defined"),
        ("try:\n    state.x = 1.0\nexcept ValueError:\n    pass", "try is not supported"),
        ("with event.x:\n    pass", "with is not supported"),
        ("state.x = float(f'{event.x}')", "f-string"),
        ("f = lambda: 1.0\nstate.x = f()", "lambda"),
        ("import os", "import inside a handler"),
        ("state.x = [1.0][0]", "a list"),
        ("state.x = {1: 1.0}[1]", "a dict"),
        ("global FAR\nFAR = 1", "assigning a global"),
        ("del state.x", "deleting a field"),
        ("state.x = countdown(3)", "countdown calls itself"),
        ("state.x = ping(3)", "p[io]ng calls itself"),
        ("state.x = starred(event.x)", "keyword-only"),
        ("state.x = with_list(event.x)", "a default of with_list"),
        ("state.x = math.pow(event.x, 2.0)", "math.pow gives other bits"),
        ("state.x = math.sin(event.x)", "math.sin"),
        ("state.x = np.sqrt(event.x)", "np.sqrt is not supported.*Use math"),
        ("state.x = dt.datetime.now()", "dt.datetime is not supported"),
        ("state.x = FAR", "FAR is int"),
        ("state.x = 9223372036854775808", r"cell.py:4.*a constant"),
        ("state.x = 1j.real", "a constant"),
        ("state.x = MUTABLE[0]", "MUTABLE is list"),
        ("raise Refused", "Refused is type"),
        ("state.y = 1.0", "writes a field that does not exist; got y; expected x"),
        ("state.x = state.y", r"state has no 'y'; expected x"),
        ("state.x = event.price", r"on_tick \(cell.py:4\): event has no 'price'"),
        ("state.x = event.aggregate_id == 'a'", "event has no 'aggregate_id'"),
        ("if event.side == 1: state.x = 1.0", r"event.side is text, and compared with; got 1"),
        ("if event.side in (1, 2): state.x = 1.0", r"event.side is text"),
        ("if event.n == 'buy': state.x = 1.0", r"event.n is no text, and compared with; got buy"),
        ("if state.x != 'buy': state.x = 1.0", r"state.x is no text"),
        ("if event.word == None: state.x = 1.0", r"compares with None.*is_null"),
        ("if event.n is None: state.x = 1.0", r"cell.py:4\): event.n is no text.*el.is_null\(event.n\)"),
        ("if event.x > 1.0 and event.maybe is not None: state.x = 1.0", r"event.maybe is no text"),
        ("state.x = 0.0 if state.x is None else 1.0", r"state.x is no text"),
        ("flag = event.when is None", r"event.when is no text"),
        ("state.x = event.word + 'x'", r"cell.py:4\): event.word is text, which has no order and no arithmetic"),
        ("if 'b' < event.word: state.x = 1.0", r"event.word is text, which has no order"),
        ("if event.word < 'b': state.x = 1.0", r"event.word is text, which has no order"),
        ("if event.word.startswith('b'): state.x = 1.0", r"event.word is text, which has no .startswith"),
        ("if 'b' in event.word: state.x = 1.0", r"event.word is text, which cannot be searched"),
    ],
)
def test_a_handler_is_refused(body, says):
    with pytest.raises(ReducerError, match=f"(?s){says}"):
        declared(body)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"fields": "x: complex = 0"}, "Made.x: unsupported type"),
        ({"fields": "x: 'Nowhere' = 0"}, "an annotation cannot be read"),
        ({"fields": "x: float = 'a'"}, "Made.x: the default does not fit; got a; expected float"),
        ({"fields": "x: float = True"}, "the default does not fit"),
        ({"fields": "x: int = 0.5"}, "the default does not fit"),
        ({"fields": "x: int = 2**63"}, "the default does not fit"),
        ({"fields": "x: bool = 1"}, "the default does not fit"),
        ({"fields": "x: str = 1"}, "the default does not fit"),
        ({"fields": "_x: float = 0.0"}, "the name is reserved"),
        ({"fields": "version: int = 0"}, "the name is reserved"),
        ({"fields": "reducer: int = 0"}, "the name is reserved"),
        ({"fields": "x = el.Array(str, 3)"}, "an Array holds float or int"),
        ({"fields": "x = el.Array(float, 0)"}, "length must be a positive integer"),
        ({"fields": "x = el.Array(float, True)"}, "length must be a positive integer"),
        ({"fields": "x = el.Keyed('symbol')"}, "at least one column"),
        ({"fields": "x = el.Keyed('symbol', symbol=str)"}, "both key and column"),
        ({"fields": "x = el.Keyed('symbol', q=complex)"}, "Keyed.q: unsupported type"),
        ({"fields": "x = el.Keyed('symbol', _q=float)"}, "underscore"),
        ({"fields": "x = el.Keyed(3, q=float)"}, "the key's name"),
        ({"fields": "x = el.Ladder('buy')"}, "side is 'bid' or 'ask'"),
        ({"name": "on_nothing_known"}, "is no handler; expected on_"),
        ({"name": "on_tikc"}, "is no handler; expected on_tick"),
        ({"name": "helper"}, "is no handler"),
        ({"more": "    on_again = el.on(Tick)(lambda state, event: None)"}, "two handlers of tick"),
        ({"more": "    on_tock = staticmethod(lambda state, event: None)"}, "plain functions outside"),
        ({"more": "    on_tock = lambda state: None"}, r"a handler takes \(state, event\)"),
        ({"more": "    on_tock = lambda state, event, more: None"}, r"a handler takes \(state, event\)"),
        ({"more": "    on_tock = lambda state, *event: None"}, r"a handler takes \(state, event\)"),
        ({"more": "    def on_tock(state, event):\n        yield"}, r"a handler takes \(state, event\)"),
        ({"more": "    async def on_tock(state, event): pass"}, r"a handler takes \(state, event\)"),
        ({"more": "    @property\n    def x(state): return 1.0"}, "both a field and a property"),
        ({"more": "    @property\n    def digest(state): return 1.0"}, "the name is reserved"),
        (
            {"more": "    @property\n    def y(state) -> complex: return 1.0"},
            "a property returns float, int, bool or str",
        ),
        ({"more": "    y = property(lambda s: 1.0, lambda s, v: None)"}, "a getter and no setter"),
        ({"more": "    @property\n    def y(state): return state.z"}, r"Made.y \(cell.py:\d+\): state has no 'z'"),
    ],
)
def test_a_class_is_refused(kwargs, says):
    with pytest.raises(ReducerError, match=f"(?s){says}"):
        declared("pass", **kwargs)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("state.x = 1.0", "assigns to a field"),
        ("state.x += 1.0", "assigns to a field"),
        ("state.ring[0] = 1.0", "assigns to an element"),
        ("state.by['a'].n = 1", "assigns to a field"),
        ("del state.by['a']", "deletes a row"),
        ("state.lots.pop('a')", r"calls .pop\(\)"),
        ("state.lots.push('a')", r"calls .push\(\)"),
        ("state.bids.clear()", r"calls .clear\(\)"),
        ("writes(state)", "assigns to a field"),
    ],
)
def test_a_property_that_changes_the_state_is_refused(body, says):
    fields = """x: float = 0.0
    ring = el.Array(float, 2)
    by = el.Keyed("word", n=int)
    lots = el.Queue("word", n=int)
    bids = el.Ladder("bid")"""
    with pytest.raises(ReducerError, match=rf"Made.y \(.*:\d+\): a property only reads, and this one {says}"):
        declared("pass", fields=fields, more=f"    @property\n    def y(state):\n        {body}\n        return 1.0")


def test_what_is_no_plain_class_is_refused():
    with pytest.raises(ReducerError, match="decorates a class"):
        el.reducer(lambda: None)
    with pytest.raises(ReducerError, match="handles no event"):
        el.reducer(type("Idle", (), {"__annotations__": {"x": float}, "x": 0.0}))
    with pytest.raises(ReducerError, match="has no state"):
        declared("pass", fields="")
    with pytest.raises(ReducerError, match="a base is a reducer or a plain class"):
        el.reducer(type("Child", (Refused,), {}))


ROUTED = "    @el.on(el.MarketData, routed='symbol')\n    def traded(state, event):\n        "


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            ROUTED.replace("'symbol'", "'price'"),
            "Made.traded: market_data is routed by one of its text .*; got price",
        ),
        (ROUTED.replace("'symbol'", "'nowhere'"), "got nowhere; expected symbol or side"),
        (ROUTED.replace("'symbol'", "True"), "got True; expected symbol or side"),
        (ROUTED.replace("el.MarketData", "Unheard"), "got symbol; expected a type that has one"),
        (ROUTED + "pass\n" + ROUTED.replace("traded", "again"), "Made has two handlers of market_data"),
        (ROUTED + "pass\n    def on_market_data(state, event):\n        ", "Made has two handlers of market_data"),
        (ROUTED.replace("el.MarketData", "Tick"), "Made has two handlers of tick"),
        (
            ROUTED.replace("el.MarketData", "el.TradingSignal").replace("'symbol'", "'strategy'"),
            r"no event that Made handles has a text field 'strategy'.*expected side or symbol or word",
        ),
        (ROUTED + "state.x = event.price ** 2\n        ", r"Made.traded \(cell.py:\d+\): operator \*\*"),
        (ROUTED + "state.x = event.word == 'a'\n        ", r"Made.traded \(cell.py:\d+\): event has no 'word'"),
        (ROUTED + "state.y = 1.0\n        ", "Made.traded writes a field that does not exist"),
    ],
)
def test_a_routed_handler_is_refused(more, says):
    with pytest.raises(ReducerError, match=f"(?s){says}"):
        declared("pass", more=f"{more}pass")


def test_a_reducer_of_routed_events_only_is_refused():
    with pytest.raises(ReducerError, match="handles no event of its own"):

        @el.reducer
        class Made:
            x: float = 0.0

            @el.on(el.MarketData, routed="symbol")
            def traded(state, event):
                state.x = event.price


def test_routed_handlers_stand_beside_the_others():
    made = declared("state.x = event.x", more=f"{ROUTED}state.x = event.price * FACTOR", extra={"FACTOR": 2.0})
    assert list(made.handlers) == list(made.columns) == ["tick"]
    assert (list(made.routed), made.routed["market_data"].key) == (["market_data"], "symbol")
    assert made.with_routed.columns == {"tick": ("x",), "market_data": ("price",)}
    assert "tick, market_data by symbol ->" in repr(made) == repr(made.with_routed)
    # What is routed is no part of the states that it takes no part in.
    alone = declared("state.x = event.x")
    assert made.fingerprint == alone.fingerprint == alone.with_routed.fingerprint
    others = [declared("state.x = event.x", more=f"{ROUTED}state.x = event.price * FACTOR", extra={"FACTOR": 3.0})]
    others.append(declared("state.x = event.x", more=ROUTED.replace("symbol", "side") + "state.x = event.price * 2.0"))
    assert len({one.with_routed.fingerprint for one in (made, alone, *others)}) == 4
    assert made(x=1.5).with_routed.layout.scalars[0].initial == 1.5


def test_names_of_globals_mean_what_they_meant_at_the_declaration():
    scope = dict(globals(), LEVEL=2.0)
    exec("class Made:\n    x: float = 0.0\n    def on_tick(state, event):\n        state.x += LEVEL", scope)
    reducer = el.reducer(scope["Made"])
    print_before = reducer.fingerprint
    scope["LEVEL"] = 99.0
    tick = Tick("a")
    found = {i: rows(folded(reducer, [[tick]], interpret=i).states) for i in (True, False)}
    assert found[True] == found[False] == [{"x": (2.0).hex()}]
    assert reducer.fingerprint == print_before


def test_one_table_declaration_may_stand_in_two_fields():
    shared = el.Keyed("symbol", n=int)

    @el.reducer
    class Twice:
        one = shared
        two = shared

        def on_tick(state, event):
            state.one[event.symbol].n += 1

    assert Twice.layout.arrow_schema.names == ["one", "two"]
    found = folded(Twice, [[Tick("a")]], interpret=True).states.to_pylist()
    assert found == [{"one": [{"symbol": "a", "n": 1}], "two": []}]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("word = event.word\nstate.x = word + 'x'", "cannot be compiled"),
        ("state.x = len(event.word)", "cannot be compiled"),
        ("n = event.x\nstate.n = n", "takes whole numbers, not a float"),
    ],
)
def test_what_only_the_compiler_sees_is_said_in_a_reducer_error(body, says):
    reducer = declared(body, fields="x: float = 0.0\n    n: int = 0")
    with pytest.raises(ReducerError, match=f"Made.*{says}"):
        folded(reducer, [[Tick("a", "b", x=1.0)]], interpret=False)


def test_a_float_is_no_int_field_interpreted_either():
    reducer = declared("n = event.x\nstate.n = n", fields="n: int = 0")
    with pytest.raises(el.errors.FoldError, match="an int field takes whole numbers"):
        folded(reducer, [[Tick("a", "b", x=1.0)]], interpret=True)
