"""A reducer inherits fields, handlers and properties as Python's classes inherit attributes."""

from __future__ import annotations

import types

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import ReducerError
from tests.examples import examples
from tests.fold.helpers import check_one_answer, digests, folded
from tests.fold.kitchen import Tick, Tock
from tests.fold.strategies import TICKS, TOCKS, aggregates


class Limits:
    """A plain class: fields alone."""

    limit: float = 2.0
    table = el.Keyed("symbol", n=int)


@el.reducer
class Sum(Limits):
    """The base of a diamond."""

    total: float = 0.0
    seen: int = 0

    def on_tick(state, event):
        state.total += event.x if event.x < state.limit else state.limit
        state.table[event.symbol].n += 1

    @el.on(Tock)
    def heard(state, event):
        state.seen += 1

    @property
    def mean(state):
        return state.total / state.seen if state.seen else 0.0


@el.reducer
class Left(Sum):
    limit = 3.0
    least: float = 0.0

    def on_tick(state, event):
        state.total -= event.x if event.x < state.limit else state.limit
        if event.x < state.least:
            state.least = event.x


@el.reducer
class Right(Sum):
    total: float = 10.0
    table = el.Keyed("symbol", n=int, y=float)

    def heard(state, event):
        state.seen += 100
        state.table[event.symbol].y = event.y

    @property
    def mean(state):
        return -1.0


@el.reducer
class Diamond(Left, Right):
    """Right's handler of tocks, Left's of ticks."""


class DiamondTwin:
    def __init__(self):
        self.limit, self.total, self.seen, self.least, self.table_ = 3.0, 10.0, 0, 0.0, {}

    def apply(self, event, version, position, timestamp):
        if isinstance(event, Tick):
            x = float("nan") if event.x is None else event.x
            self.total -= x if x < self.limit else self.limit
            self.least = x if x < self.least else self.least
        elif isinstance(event, Tock):
            self.seen += 100
            self.table_.setdefault(event.symbol, {"n": 0, "y": 0.0})["y"] = event.y

    def record(self):
        return {name: getattr(self, name) for name in ("limit", "total", "seen", "least")}

    def properties(self):
        return {"mean": -1.0}

    def tables(self):
        return {"table": [{"symbol": symbol, **row} for symbol, row in self.table_.items()]}


def test_fields_stand_in_resolution_order_and_keep_their_place():
    assert Sum.layout.arrow_schema.names == ["limit", "total", "seen", "table"]
    assert Diamond.layout.arrow_schema.names == ["limit", "total", "seen", "least", "table"]
    assert [scalar.initial for scalar in Diamond.layout.scalars] == [3.0, 10.0, 0, 0.0]
    assert [column.name for column in Diamond.layout.tables[0].columns] == ["n", "y"]
    assert list(Diamond.handlers) == ["tick", "tock"]
    assert Diamond.__doc__ == "Right's handler of tocks, Left's of ticks."
    assert Left.__doc__ is None


@examples(20)
@given(aggregates(TICKS, TOCKS))
def test_a_diamond_gives_one_answer(events_of):
    check_one_answer(Diamond, DiamondTwin, events_of)


def test_parameters_are_inherited_and_given_on():
    strict = Diamond(limit=0.5)
    assert [scalar.initial for scalar in strict.layout.scalars] == [0.5, 10.0, 0, 0.0]
    assert strict.code_key == Diamond.code_key

    @el.reducer
    class Stricter(strict):  # type: ignore[valid-type]  # checkers take it for an instance
        total = 1.0

    assert [scalar.initial for scalar in Stricter.layout.scalars] == [0.5, 1.0, 0, 0.0]
    ticks = [Tick("a", x=2.0)]
    assert folded(Stricter, [ticks], interpret=True).states["total"].to_pylist() == [0.5]


def test_routed_handlers_are_inherited_and_replaced():
    @el.reducer
    class Marked(el.Portfolio):
        trades: int = 0

    @el.reducer
    class Counted(Marked):
        def marked(state, event):
            state.trades += 1

    assert list(Marked.routed) == list(Counted.routed) == ["market_data"]
    with el.open(":memory:") as lab:
        lab.append("portfolio/a", el.PortfolioChange("X", 2.0, 100.0))
        lab.append("market/X", [el.MarketData("X", 101.0, 1.0), el.MarketData("X", 103.0, 1.0)])
        marked, counted = (lab.state(one, "portfolio/a", mark_with="market/*") for one in (Marked, Counted))
        assert (marked.trades, marked.equity) == (0, 6.0)
        assert (counted.trades, counted.equity) == (2, 0.0)
        assert lab.state(Counted, "portfolio/a").trades == 0


def test_a_base_runs_in_a_subclass_as_it_was_declared():
    scope = {"el": el, "FACTOR": 2.0}
    exec(
        "@el.reducer\nclass Base:\n    x: float = 0.0\n    def on_tick(state, event):\n        state.x += FACTOR\n",
        scope,
    )
    del scope["FACTOR"]
    exec("@el.reducer\nclass Later(Base):\n    y: float = 0.0\n", scope)
    assert folded(scope["Later"], [[Tick("a")]], interpret=True).states["x"].to_pylist() == [2.0]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (
            "(Sum):\n    seen: float = 1.0",
            r"Child.seen: a base declares this field as another kind.*got float; exp.* int",
        ),
        ("(Sum):\n    seen = 1.5", r"Child.seen: the default does not fit; got 1.5; expected int"),
        ("(Sum):\n    seen = el.Array(float, 3)", r"Child.seen: .*got el.Array\(float, 3\); expected int"),
        ("(Sum):\n    table: float = 0.0", r"got float; expected el.Keyed\('symbol', n=int\)"),
        ("(Sum):\n    table = el.Keyed('symbol', y=float)", r"got el.Keyed\('symbol', y=float\); expected el.Keyed"),
        ("(Sum):\n    table = el.Keyed('key', n=int)", r"got el.Keyed\('key', n=int\)"),
        ("(Sum):\n    table = el.Queue('symbol', n=int)", r"got el.Queue\('symbol', n=int\)"),
        ("(Sum):\n    table = 3", "unsupported type"),
        ("(el.OrderBook):\n    bids = el.Ladder('ask')", r"got el.Ladder\('ask'\); expected el.Ladder\('bid'\)"),
        ("(Sum):\n    mean: float", "Child.mean is both a field and a property"),
        ("(Sum):\n    mean = 1.0", "Child.mean replaces a property by something else; got 1.0"),
        ("(Sum):\n    heard = None", "Child.heard replaces a handler by something else"),
        ("(Sum):\n    @property\n    def seen(state): return 1.0", "Child.seen is both a field and a property"),
        ("(Sum):\n    @property\n    def heard(state): return 1.0", "Child.heard replaces a handler by something else"),
        ("(Sum):\n    def mean(state, event): pass", "Child.mean replaces a property by something else"),
        (
            "(Sum):\n    def on_tock(state, event): pass",
            "Child has two handlers of tock, the second is on_tock. To replace a base's handler, give the new one the",
        ),
        ("(Sum):\n    def other(state, event): pass", "Child.other is no handler"),
        ("(Limits): pass", "Child handles no event"),
        ("(dict, Sum): pass", "Child: a base is a reducer or a plain class; got dict"),
        ("(Sum, ValueError): pass", "Child: a base is a reducer or a plain class; got BaseException"),
        (
            "(Sum):\n    def on_tick(state, event):\n        state.seen += 1\n        super().on_tick(state, event)",
            r"Child.on_tick \(cell.py:4\): super\(\) is not supported.* Put what both do into a function outside",
        ),
        (
            "(Sum):\n    @property\n    def mean(state):\n        return 1.0 + super().mean",
            r"Child.mean \(cell.py:4\): super\(\) is not supported",
        ),
        (
            "(Sum):\n    def on_tick(state, event):\n        Sum.on_tick(state, event)",
            r"Child.on_tick \(cell.py:3\): Sum is Reducer",
        ),
    ],
)
def test_what_cannot_be_inherited_is_refused(body, says):
    scope = {**globals()}
    exec(compile(f"class Child{body}", "cell.py", "exec", dont_inherit=True), scope)
    with pytest.raises(ReducerError, match=f"(?s){says}"):
        el.reducer(scope["Child"])


def add(state, event):
    state.a += event.y


def count(state, event):
    state.b += 1


def scale(state, event):
    state.a = state.a * 0.5 + state.b


def up(state):
    return state.a + 1.0


def down(state):
    return state.a - 1.0


MEMBERS = {
    "a": st.floats(-9.0, 9.0),
    "b": st.integers(-9, 9),
    "c": st.floats(-9.0, 9.0),
    "d": st.booleans(),
    "on_tock": st.sampled_from([add, count, scale]),
    "bound": st.sampled_from([el.on(Tick)(types.FunctionType(f.__code__, {}, f.__name__)) for f in (count, scale)]),
    "shown": st.sampled_from([property(up), property(down)]),
}
ROOT = {"a": 0.0, "b": 0, "on_tock": add, "__annotations__": {"a": float, "b": int}}


@st.composite
def hierarchies(draw):
    """Namespaces of classes, each with the numbers of its bases among those before."""
    found = [((), ROOT)]
    for number in range(1, draw(st.integers(2, 6))):
        bases = draw(st.lists(st.integers(0, number - 1), min_size=1, max_size=3, unique=True))
        names = draw(st.lists(st.sampled_from(sorted(MEMBERS)), max_size=4, unique=True))
        namespace = {name: draw(MEMBERS[name]) for name in names}
        fields = {name: type(value) for name, value in namespace.items() if type(value) in (float, int, bool)}
        found.append((tuple(bases), {**namespace, "__annotations__": fields}))
    return found


@examples(25)
@given(hierarchies(), st.lists(st.booleans(), min_size=6, max_size=6), aggregates(TOCKS, TICKS))
def test_a_reducer_with_bases_is_the_flat_one(spec, decorated, events_of):
    plain, made = [], []
    for number, (bases, namespace) in enumerate(spec):
        try:
            plain.append(type(f"C{number}", tuple(plain[base] for base in bases), dict(namespace)))
        except TypeError:  # no consistent resolution order
            assume(False)
        cls = types.new_class(f"C{number}", tuple(made[base] for base in bases), exec_body=_filled(namespace))
        made.append(el.reducer(cls) if decorated[number] or number == len(spec) - 1 else cls)
    flat = {}
    for owner in reversed(plain[-1].__mro__[:-1]):
        flat.setdefault("__annotations__", {}).update(owner.__annotations__)
        flat.update({name: getattr(plain[-1], name) for name in vars(owner) if name in MEMBERS})
    flat = el.reducer(type("Flat", (), flat))
    assert made[-1].layout.describe() == flat.layout.describe()
    assert made[-1].fingerprint == flat.fingerprint
    assert list(made[-1].properties) == list(flat.properties)
    states = [folded(one, events_of, interpret=True).states for one in (made[-1], flat)]
    assert digests(states[0]) == digests(states[1])


def _filled(namespace):
    return lambda ns: ns.update(namespace)
