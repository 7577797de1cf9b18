"""Upcasters count in the fingerprint of the reducers that handle their type: what decides what they do, no more."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

import eventlab as el
from eventlab.events import upcast as upcasting

PLAIN = """
import functools
import polars as pl
from polars import col

FACTOR = 2.0
WORDS = {"b": "buy", "s": "sell"}
PRICE = pl.col("price") * 100
KNOWN = pl.DataFrame({"word": ["x"], "code": [1]})
LETTERS = {"a", "b", "c", "d"}

def scaled(name, factor=3.0):
    return col(name) * factor

def unused(name):
    return col(name)

@functools.lru_cache
def kept(name):
    return pl.col(name) + 1.0

def up(frame):
    bonus = [scaled(name) for name in ("price",)]
    side = pl.col("side").replace(WORDS)
    known = pl.lit(KNOWN["code"][0]) + pl.lit(len(LETTERS))
    return {"price": PRICE * FACTOR + bonus[0] + kept("price"), "side": side, "known": known}
"""


@pytest.fixture(autouse=True)
def _own_upcasters(monkeypatch):
    monkeypatch.setattr(upcasting, "_declared", {})


@el.event(schema_version=2)
class Fingerprinted:
    price: float
    side: str
    known: int = 0


@el.reducer
class Handles:
    total: float = 0.0

    def on_fingerprinted(state, event):
        state.total += event.price


BARE = Handles.fingerprint


def fingerprint(source, reducer=Handles):
    scope: dict[str, Any] = {"__name__": "cell"}
    exec(compile(textwrap.dedent(source), "<cell>", "exec", dont_inherit=True), scope)
    el.upcast(Fingerprinted, from_=1)(scope["up"])
    return reducer.fingerprint


def test_an_upcaster_declared_after_the_reducer_counts_and_its_going_too():
    with_one = fingerprint(PLAIN)
    assert with_one != BARE
    assert Handles.fingerprint == with_one
    upcasting._declared.clear()
    assert Handles.fingerprint == BARE


def test_upcasters_of_other_types_do_not_count():
    el.reducer(type("Other", (), {"__annotations__": {"n": int}, "n": 0, "on_market_data": lambda state, event: None}))
    before = el.Portfolio.fingerprint
    fingerprint(PLAIN)
    assert el.Portfolio.fingerprint == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def up(frame):\n", "def up(frame):\n    '''Doc.'''\n    # why\n\n"),
        ("def scaled(", "\n\n\ndef scaled("),
        ("def unused(name):\n    return col(name)", ""),
        ('("price",)', '(  "price",  )'),
        ('{"a", "b", "c", "d"}', '{"d", "c", "b", "a"}'),
    ],
)
def test_comments_places_and_what_is_not_reached_do_not_count(old, new):
    assert old in PLAIN
    assert fingerprint(PLAIN.replace(old, new)) == fingerprint(PLAIN)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("FACTOR = 2.0", "FACTOR = 2.5"),
        ("factor=3.0", "factor=4.0"),
        ("col(name) * factor", "col(name) / factor"),
        ('"s": "sell"', '"s": "short"'),
        ('pl.col("price") * 100', 'pl.col("price") * 101'),
        ('"code": [1]', '"code": [2]'),
        ("+ 1.0", "+ 2.0"),
        ("scaled(name) for", "scaled(name, 3.5) for"),
        ('"d"}', '"e"}'),
        ("+ bonus[0]", "- bonus[0]"),
        ("from polars import col", "from polars import lit as col"),
    ],
)
def test_constants_tables_expressions_and_helpers_count(old, new):
    assert old in PLAIN
    assert fingerprint(PLAIN.replace(old, new)) != fingerprint(PLAIN)


def test_closures_and_constants_of_own_modules_count(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_settings.py").write_text("SCALE = 1.0\n")
    source = """
    import own_settings
    def make(bonus):
        def up(frame):
            return frame.with_columns(price=own_settings.SCALE + bonus)
        return up
    up = make({})
    """
    one, two, again = (fingerprint(textwrap.dedent(source).format(bonus)) for bonus in (1.0, 2.0, 1.0))
    assert one == again != two
    sys.modules["own_settings"].SCALE = 3.0
    assert Handles.fingerprint != again
    del sys.modules["own_settings"]


def test_every_step_of_the_chain_counts():
    @el.event(schema_version=3)
    class Chained:
        x: float

    @el.reducer
    class Made:
        n: float = 0.0

        def on_chained(state, event):
            state.n += event.x

    def same(frame):
        return frame

    def added(frame):
        return {"y": None}

    found = [Made.fingerprint]
    for from_, function in [(1, same), (2, same), (1, added), (2, added)]:
        upcasting._declared.clear()
        el.upcast(Chained, from_=from_)(function)
        found.append(Made.fingerprint)
    el.upcast(Chained, from_=1)(same)
    found.append(Made.fingerprint)
    assert len(set(found)) == len(found)


def test_it_is_the_same_in_every_process():
    script = "from tests.fold.declare.test_upcaster_fingerprint import PLAIN, fingerprint\nprint(fingerprint(PLAIN))"
    found = {fingerprint(PLAIN) + "\n"}
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
        )
        found.add(done.stdout)
    assert len(found) == 1
