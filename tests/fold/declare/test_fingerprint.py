"""A fingerprint changes with what decides the states, and with nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

import eventlab as el

PLAIN = """
FACTOR = 2.0
SIDES = ("buy", "sell")

def helper(x, scale=3.0):
    return x * scale

def other(x, scale=3.0):
    return x - scale

def make(bonus):
    def on_tick(state, event):
        state.total += bonus
    return on_tick

class Made:
    total: float = 0.0
    by = el.Keyed("word", n=int)

    def on_tick(state, event):
        if event.side in SIDES and event.word in {"x", "y", "z"}:
            state.total += helper(event.x) * FACTOR
"""


def fingerprint(source):
    from tests.fold.kitchen import Tick  # noqa: F401  declares the event type

    scope = {"el": el}
    exec(compile(textwrap.dedent(source), "cell.py", "exec", dont_inherit=True), scope)
    return el.reducer(scope["Made"]).fingerprint


BASE = fingerprint(PLAIN)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    def on_tick(state, event):\n        if", "    def on_tick(state, event):\n        # why\n\n        if"),
        (
            "    def on_tick(state, event):\n        if",
            "    def on_tick(state, event):\n        '''Doc.'''\n        if",
        ),
        ("def helper(x, scale=3.0):\n", "def helper(x, scale=3.0):\n    '''Doc.'''\n"),
        ("class Made:\n", "class Made:\n    '''Doc.'''\n"),
        ('("buy", "sell")', '(  "buy",  "sell"  )'),
        ("\nclass Made", "\n\n\n\nclass Made"),
        ("def other(x, scale=3.0):\n    return x - scale", ""),
        (
            '    by = el.Keyed("word", n=int)\n',
            '    by = el.Keyed("word", n=int)\n\n    @property\n    def y(s): return 1.0\n',
        ),
    ],
)
def test_comments_docstrings_places_and_properties_do_not_count(old, new):
    assert old in PLAIN
    assert fingerprint(PLAIN.replace(old, new)) == BASE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("FACTOR = 2.0", "FACTOR = 2.5"),
        ("FACTOR = 2.0", "FACTOR = 2"),
        ('("buy", "sell")', '("buy", "sold")'),
        ("scale=3.0):\n    return x * scale", "scale=4.0):\n    return x * scale"),
        ("return x * scale", "return x + scale"),
        ("helper(event.x)", "other(event.x)"),
        ("total: float = 0.0", "total: float = -0.0"),
        ("n=int", "n=float"),
        ('"z"}', '"w"}'),
        ("state.total +=", "state.total -="),
        ("event.side in", "event.side not in"),
        ("class Made:\n", "class Made:\n    extra: int = 0\n"),
    ],
)
def test_constants_helpers_defaults_operators_and_layout_count(old, new):
    assert old in PLAIN
    assert fingerprint(PLAIN.replace(old, new)) != BASE


def test_closures_count():
    made = [f"{PLAIN}    on_tick = make({bonus})\n" for bonus in ("1.0", "2.0", "1.0")]
    one, two, again = (fingerprint(source) for source in made)
    assert one == again != two


def test_a_string_that_is_docstring_and_constant_counts():
    source = """
    class Made:
        n: int = 0
        def on_tick(state, event):
            'buy'
            state.n += event.side == 'buy'
    """
    assert fingerprint(source) != fingerprint(source.replace("buy", "sell"))


def test_which_helper_a_name_means_counts():
    source = """
    def g(x): return x + 1.0
    def f(x): return g(x) * 2.0
    a, b = {}
    class Made:
        n: float = 0.0
        def on_tick(state, event):
            state.n = a(event.x) + b(event.x)
    """
    found = {fingerprint(textwrap.dedent(source).format(pair)) for pair in ("f, f", "g, f", "f, g", "g, g")}
    assert len(found) == 4


def test_event_schemas_count():
    def handled(schema_version):
        @el.event(schema_version=schema_version)
        class Revised:
            x: float

        @el.reducer
        class Made:
            n: float = 0.0

            def on_revised(state, event):
                state.n += event.x

        return Made.fingerprint

    assert handled(1) != handled(2)


def test_it_is_the_same_in_every_process():
    script = (
        "from tests.fold.declare.test_fingerprint import BASE\nimport eventlab as el\n"
        "print(BASE, el.Portfolio.fingerprint)"
    )
    found = set()
    for seed in ("0", "1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
        )
        found.add(done.stdout)
    assert found == {f"{BASE} {el.Portfolio.fingerprint}\n"}


def test_names_of_keyword_arguments_count():
    def helper(x, a=1.0, b=2.0):
        return x * a - b

    def one():
        @el.reducer
        class Keywords:
            x: float = 0.0

            def on_market_data(state, event):
                state.x = helper(event.price, a=3.0, b=5.0)

        return Keywords

    def other():
        @el.reducer
        class Keywords:
            x: float = 0.0

            def on_market_data(state, event):
                state.x = helper(event.price, b=3.0, a=5.0)

        return Keywords

    assert one().fingerprint != other().fingerprint
    assert one().code_key != other().code_key
