"""A name that is an integer on one way and a float on another: the same bits on both paths, or refused."""

from __future__ import annotations

import textwrap

import pytest

import eventlab as el
from eventlab.errors import ReducerError
from tests.fold.helpers import compiled_only, folded, rows
from tests.fold.kitchen import Tick

EVENTS = [
    Tick("a", x=x, n=n, flag=flag)
    for x in (0.0, -0.0, 2.5, -1e300, None)
    for n in (0, 1, -7, 2**53 + 1, 2**63 - 1)
    for flag in (False, True)
]


def positive(x):
    return x if x > 0.0 else 0


def whole(n):
    return n if n > 0 else 0


def declared(body):
    source = f"""
class Made:
    x: float = 0.0
    n: int = 0
    flag: bool = False
    ring = el.Array(float, 2)

    @property
    def half(state):
        return state.x / 2.0 if state.flag else 0

    def on_tick(state, event):
{textwrap.indent(body, " " * 8)}
"""
    scope = dict(globals())
    exec(compile(source, "mixed.py", "exec", dont_inherit=True), scope)
    return el.reducer(scope["Made"])


def both_ways(body):
    """What the two paths emit after every event."""
    reducer, cuts = declared(body), [list(range(len(EVENTS) + 1))]
    with compiled_only():
        compiled = folded(reducer, [EVENTS], interpret=False, cuts=cuts)
    return rows(compiled.emitted), rows(folded(reducer, [EVENTS], interpret=True, cuts=cuts).emitted)


@pytest.mark.parametrize(
    "body",
    [
        "v = 0\nfor k in range(2):\n    v += event.x\nstate.x = v",
        "v = 0\nif event.flag:\n    v = event.x\nstate.x = v\nstate.ring[1] = v\nstate.flag = v",
        "v = event.n if event.flag else event.x\nstate.x = v / 3 + v * event.x - v % 2.5 + v // 0.5",
        "v = event.n if event.flag else event.x\nif v > 0 or v == -7 or not v:\n    state.x = v",
        "v = event.n if event.flag else event.x\nif v < event.x and v:\n    state.x = -float(v)",
        "state.x = 1.5 - (event.x or event.n)",
        "state.x = 0.5 * positive(event.x) + positive(event.x)",
        "v = positive(event.x)\nstate.x = v\nstate.flag = event.flag\nstate.x = state.half",
        "state.x = -min(event.n, 5.0) - max(0, event.x) + min(event.n, event.x, 3) + max(event.x, 1, event.n)",
        "state.x = -min(event.flag, event.x)",
        "state.x = min(event.n, 1e300) + 1",
        "v = 2\nif event.flag:\n    v = True\nstate.n = v * 3 - v",
        "v = 0\nif event.flag:\n    v = event.n\nstate.n = -v + whole(event.n)",
        "v = 0\nstate.n = v\nv = event.x\nstate.x = -v",
    ],
)
def test_where_it_makes_no_difference_the_bits_are_the_same(body):
    compiled, interpreted = both_ways(body)
    assert compiled == interpreted


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("v = 0\nif event.flag:\n    v = event.x\nstate.x = -v", 16),
        ("v = 0\nfor k in range(event.n):\n    v += event.x\nstate.x = -v", 16),
        ("v = event.n if event.flag else event.x\nstate.x = v + 1", 14),
        ("v = event.n if event.flag else event.x\nstate.x = v * 1024", 14),
        ("v = event.n if event.flag else event.x\nstate.x = v // 3", 14),
        ("v = event.n if event.flag else event.x\nstate.flag = v == event.n", 14),
        ("v = event.n if event.flag else event.x\nstate.flag = v > 9007199254740992", 14),
        ("v = event.n if event.flag else event.x\nstate.flag = el.is_null(v)", 14),
        ("v = event.n if event.flag else event.x\nstate.n = int(v)", 14),
        ("v = event.n if event.flag else event.x\nstate.x = abs(v)", 14),
        ("v = event.n if event.flag else event.x\nstate.x = whole(v)", 14),
        ("v = True if event.flag else event.x\nstate.x = -v", 14),
        ("v = event.n\nfor k in range(3):\n    v = v / 2\nw = v\nstate.x = -w", 17),
        ("state.x = -(event.x or 0)", 13),
        ("state.x = -positive(event.x)", 13),
        ("v = positive(event.x)\nw = v if event.flag else 1.5\nstate.x = w - event.n", 15),
        ("state.x = -state.half", 13),
    ],
)
def test_where_it_would_the_line_is_refused(body, line):
    with pytest.raises(ReducerError, match=rf"mixed.py:{line}\).*an int on one way, a float on another.*Write 0.0 for"):
        folded(declared(body), [EVENTS], interpret=False)
