"""What the compiler has against a handler is said with the handler's line, its fields and a way out."""

from __future__ import annotations

import linecache
import math
from contextlib import nullcontext

import pytest

import eventlab as el
from eventlab.errors import FoldError, ReducerError
from eventlab.fold import fold as drive
from eventlab.fold.native import cache


@el.event
class Wrong:
    symbol: el.Symbol
    price: float
    count: int
    flag: bool
    note: str


def one_or_none(x):
    if x > 1.0:
        return 1.0
    return "no"


def both(a, b):
    return a + b


CLASS = """
@el.reducer
class R:
    total: float = 0.0
    n: int = 0
    word: str = ""
    window = el.Array(float, 4)
    rows = el.Keyed("symbol", a=float)
    bids, lots = el.Ladder("bid"), el.Queue("symbol", a=float)

    def on_wrong(state, event):
        {body}
"""


def declared(body, name="handler_of_a_test.py"):
    source = CLASS.format(body=body.replace("\n", "\n        "))
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    scope = {"el": el, "math": math, "one_or_none": one_or_none, "both": both, "__name__": __name__}
    exec(compile(source, name, "exec"), scope)
    return scope["R"]


def raised(reducer, interpret):
    with el.open(":memory:") as lab:
        lab.append("w", [Wrong("B", float(k), k, k % 2 == 0, "note") for k in range(1, 4)])
        with pytest.raises((ReducerError, FoldError)) as caught:
            lab.state(reducer, "w", interpret=interpret)
    return str(caught.value)


@pytest.mark.parametrize(
    ("body", "line", "said"),
    [
        (
            "s = event.symbol\nstate.total += s",
            13,
            ["a float += text", "state.total += s", "state.total is float", "=="],
        ),
        ("s = event.symbol\nstate.total = s", 13, ["type float takes numbers, not text", "type str"]),
        ("p = event.price\nstate.word = p", 13, ["type str takes text", "state.word is text"]),
        ("state.n = event.price", 12, ["not a float", "event.price is float; state.n is int", "int(...)"]),
        ("state.total += state.rows[event.symbol].b", 12, ["a row of rows has no .b", "event.symbol is text"]),
        ("state.rows[event.price].a += 1.0", 12, ["the table rows has no row of a float", "keys are text"]),
        ("state.bids.set(event.price)", 12, ["the ladder bids: set() takes (price, size), and is given a float"]),
        ("state.bids.push(event.price)", 12, ["the ladder bids has no .push", "state.bids is a Ladder"]),
        ("state.total += both(event.price)", 12, ["the helper takes (a, b), and is called with a float"]),
        ("state.total += one_or_none(event.price)", 12, ["returns text or a float", "one type on every way"]),
        ("x = 1.0\nif event.flag:\n    x = event.symbol\nstate.total += x", 15, ["x is", "one type"]),
        ("for x in event.price:\n    state.total += x", 12, ["a float cannot be iterated"]),
        ("if state.rows[event.symbol] > 1.0:\n    state.n += 1", 12, ["a row of rows > a float", "columns"]),
        ("state.total = max(event.price)", 12, ["max() takes two or three numbers, and is given a float"]),
        ("s = event.note\nif s.startswith('n'):\n    state.n += 1", 13, ["text has no .startswith", "in (...)"]),
        ("s = event.note\nif s > 'n':\n    state.n += 1", 13, ["text > text", "compared with =="]),
        ("for k in range(event.price):\n    state.n += 1", 12, ["range() takes integers", "int(...)"]),
        (
            "state.total = max(event.price, 1.0, 2.0, 3.0)",
            12,
            ["max() takes two or three numbers", "given a float, a float, a float, a float"],
        ),
        ("for k in range(0, event.count, 2):\n    state.n += 1", 12, ["one or two integers"]),
        ("if state.window:\n    state.n += 1", 12, ["an array"]),
        ("if state.rows[event.symbol]:\n    state.n += 1", 12, ["a row of rows is neither true nor false"]),
        ("state.window[event.flag] = 1.0", 12, ["an array has no element at a bool"]),
        ("state.total += event.price()", 12, ["a float is called, and is no function"]),
        ("state.total = math.log(event.price, 2.0)", 12, ["called with a float, a float"]),
        ("state.n = state.lots.count(event.price)", 12, ["the table lots: count() takes (key), and is given a float"]),
        ("state.n += event.price in state.rows", 12, ["a float in the table rows is not supported"]),
        ("state.total = event.note or 1.0", 12, ["a value is text on one way, a float on another", "Keep it"]),
        ("row = state.rows[event.symbol]\nrow.total = 1.0", 13, ["a row of rows has no .total to assign to"]),
        ("state.rows[event.symbol] = event.price", 12, ["does not take a float for a row", "row's columns"]),
        ("a, b = event.price", 12, ["a float cannot be unpacked"]),
        ("a, b, c = (event.price, 1.0)\nstate.total = a", 12, ["2 values are unpacked into 3 names"]),
        ("state.total = (1.0, 2.0)", 12, ["a tuple stands where a float is needed"]),
        ("state.total = -event.note", 12, ["text has no negative"]),
        ("for k in range(event.note):\n    state.n += k", 12, ["range() takes one or two integers, and is given text"]),
        ("state.total = (state.window + 1.0)[0]", 12, ["an array is no operand", "Write a loop"]),
        ("state.total = state.window.sum()", 12, ["an array has no .sum", "len()"]),
        ("for x in event:\n    state.n += 1", 12, ["an event is no tuple", "Name its fields"]),
        (
            "state.total = both(event.price, event.note)",
            12,
            ["a float + text is not supported, in both (", "return a + b"],
        ),
    ],
)
def test_the_line_the_types_and_the_fix_are_told(body, line, said):
    reducer = declared(body)
    compiled = raised(reducer, interpret=False)
    assert f"R.on_wrong cannot be compiled (handler_of_a_test.py:{line})" in compiled
    for words in said:
        assert words in compiled
    for noise in ("numba", "float64", "View(", "Text(", "nopython", "File"):
        assert noise not in compiled
    interpreted = raised(reducer, interpret=True)
    assert "R failed on wrong of 'w', version" in interpreted
    assert "handler_of_a_test.py:" in interpreted or "test_diagnostics.py:" in interpreted
    assert "Event(" in interpreted


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 1.0", "a handler returns nothing"),
        ("event.price = 1.0", "assigns to event.price"),
        ("if event.flag:\n    x = 1.0\nstate.total += x", "(handler_of_a_test.py:14): x may have no value here"),
        ("for k in range(event.count):\n    x = 1.0\nstate.total += x", "x may have no value"),
        ("while event.flag:\n    x = 1.0\nstate.total += x", "x may have no value"),
        ("if (x := event.price) > 1.0:\n    state.total += x", ":= is not supported"),
        ("state.total = (x := event.price) + 1.0", ":= is not supported"),
        ("if event.price is 1.0:\n    state.n += 1", "`is` for something else than None"),
        ("x = event.price\ndel x", "deleting a local name"),
        ("state.n = event.count << 2", "Instead multiply by a power of two"),
        ("state.total = event.price @ event.price", "operator @"),
        ("state.n = ~event.count", "Write -x - 1"),
        ("try:\n    state.n += 1\nexcept ValueError:\n    pass", "try is not supported"),
        ("state.total += event.prise", "event has no 'prise'"),
        ("state.rows = 1", "writes a field that does not exist"),
        ("state.total += state.window[0:2][0]", "a slice is not supported"),
        ("state.window[0:2] = 1.0", "a slice is not supported"),
        ("if event.symbol in ('B', 1):\n    state.n += 1", "a tuple of one of these"),
        ("match event.count:\n    case [1, 2]:\n        state.n += 1", "match on a sequence"),
        ("raise", "raises nothing"),
        ("raise ValueError() from KeyError()", "raise … from is not supported"),
        ("a, *b = (event.price, 1.0)", "a starred name is not supported"),
        ("if event.symbol in (None,):\n    state.n += 1", "a tuple of one of these"),
        ("if event.price in (event.price, 1.0):\n    state.n += 1", "in a tuple of values"),
    ],
)
def test_what_can_be_seen_is_refused_when_it_is_declared(body, said):
    with pytest.warns(SyntaxWarning) if " is 1.0" in body else nullcontext(), pytest.raises(ReducerError) as caught:
        declared(body)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        "x = y = event.price\nstate.total += x + y",
        "x = state.total = event.price\nstate.total += x",
        "a = b = c = 0.0\nstate.total += a + b + c",
        "if event.flag:\n    x = 1.0\nelse:\n    x = 2.0\nstate.total += x",
        "for k in range(3):\n    x = 1.0\n    state.total += x * k",
        "x = 0.0\nwhile x < 3.0:\n    x += 1.0\n    if x > event.price:\n        break\nstate.total += x",
        "if event.flag:\n    raise ValueError('flag')\nelse:\n    x = 1.0\nstate.total += x",
        "if event.count > 1:\n    return\nstate.total += 1.0",
        "return None",
        "match event.count:\n    case 1:\n        state.n += 1\n    case _:\n        state.n += 2",
    ],
)
def test_names_that_have_a_value_on_every_way_are_not(body):
    assert declared(body).name == "R"


def test_a_state_that_would_fill_the_stack_is_refused():
    class Large:
        window = el.Array(float, 2**17 + 1)

        def on_wrong(state, event):
            state.window[0] = event.price

    with pytest.raises(ReducerError, match=r"1,048,576 bytes an aggregate at most.*got 1,048,584 bytes.*el\.Keyed"):
        el.reducer(Large)


def test_the_largest_state_folds():
    @el.reducer
    class Largest:
        window = el.Array(float, 2**17)

        def on_wrong(state, event):
            state.window[event.count] = event.price

    with el.open(":memory:") as lab:
        lab.append("w", [Wrong("B", 2.5, 2**17 - 1, True, "")])
        found = [lab.state(Largest, "w", interpret=interpret) for interpret in (True, False)]
    assert found[0].digest == found[1].digest
    assert found[1].window[-1] == 2.5


def test_help_is_the_reducers_own():
    assert el.TickBars.__doc__.startswith("Bars of equally many trades.")
    assert el.TickBars(size=3).__doc__ == el.TickBars.__doc__


def test_missing_and_empty_text_is_false_on_both_paths():
    reducer = declared("if not event.note:\n    state.n += 1\nif event.note:\n    state.total += 1.0")
    with el.open(":memory:") as lab:
        lab.append("w", [Wrong("B", 1.0, 1, True, ""), Wrong("B", 1.0, 1, True, "x")])
        found = [lab.state(reducer, "w", interpret=interpret) for interpret in (True, False)]
    assert [(state.n, state.total) for state in found] == [(1, 1.0), (1, 1.0)]


def test_a_reducer_that_cannot_be_compiled_goes_on_as_plain_python(monkeypatch, tmp_path):
    reducer = declared("if event.count > 10:\n    state.total += one_or_none(event.price)\nstate.n += 1")
    monkeypatch.setenv(cache.FOLDER, str(tmp_path))
    monkeypatch.setattr(drive, "WORTH_LOADING", 1)
    monkeypatch.setattr(drive, "WORTH_COMPILING", 2)
    with el.open(":memory:") as lab:
        lab.append("w", [Wrong("B", 1.0, 1, True, "")] * 3)
        with pytest.warns(
            el.errors.NotCompiled, match=r"handler_of_a_test.py:13\).*returns text or a float.*plain Python"
        ):
            assert lab.state(reducer, "w").n == 3
        assert lab.state(reducer, "w").n == 3  # and says so once
        with pytest.raises(ReducerError, match="cannot be compiled"):
            lab.state(reducer, "w", interpret=False)
