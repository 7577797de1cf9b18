"""`lab.scan`: a lazy frame that reads only the columns, aggregates, times and positions that a query needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
from polars.io.plugins import register_io_source

from eventlab.events.types import EventType
from eventlab.store.api import EventReader, frame_schema

_NS = {"Nanoseconds": 1, "Microseconds": 1_000, "Milliseconds": 1_000_000}
_MIRROR = {"Gt": "Lt", "GtEq": "LtEq", "Lt": "Gt", "LtEq": "GtEq", "Eq": "Eq"}


def scan(store: EventReader, declared: EventType) -> pl.LazyFrame:
    """See :meth:`eventlab.lab.lab.Lab.scan`."""
    schema = frame_schema(declared)

    def source(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        del batch_size  # pieces are segments, which were bounded when written
        # Polars names the columns as a set, but checks what comes back in the schema's order.
        wanted = [name for name in schema if with_columns is None or name in with_columns]
        # With a predicate, a number of rows counts the rows before filtering: none may be skipped.
        bounds = ScanBounds() if predicate is None or n_rows is not None else bounds_of(predicate)
        read = wanted
        if predicate is not None:
            needed = set(predicate.meta.root_names())
            read = [name for name in schema if name in needed or name in wanted]
        left = n_rows
        # No column at all would lose the number of rows, which len() asks for.
        rows = store.rows(
            declared,
            aggregates=bounds.among(store),
            start=bounds.start,
            stop=bounds.stop,
            first_position=_position(bounds.first_position or 0),
            stop_position=None if bounds.stop_position is None else _position(bounds.stop_position),
            columns=read or ["position"],
        )
        for frame in rows:
            if left is not None:
                frame = frame.head(left)  # noqa: PLW2901
                left -= len(frame)
            kept = frame if predicate is None else frame.filter(predicate)
            made = [kept.select(wanted or ["position"])]
            del frame, kept  # a frame may be a whole segment: free it before the next is read
            yield made.pop()
            if left == 0:
                return

    return register_io_source(source, schema=schema, explain_name=f"eventlab {declared.name}")


@dataclass(frozen=True, slots=True)
class ScanBounds:
    """Bounds that a predicate implies: rows outside need not be read.

    Attributes
    ----------
    start, stop : int or None
        Event times, ns: inclusive, exclusive.
    first_position, stop_position : int or None
        Positions: inclusive, exclusive.
    names : frozenset of str or None
        The only aggregate ids there may be.
    prefix : str
        What every aggregate id begins with.
    """

    start: int | None = None
    stop: int | None = None
    first_position: int | None = None
    stop_position: int | None = None
    names: frozenset[str] | None = None
    prefix: str = ""

    def both(self, other: ScanBounds) -> ScanBounds:
        """The bounds of a conjunction."""
        known = [bounds.names for bounds in (self, other) if bounds.names is not None]
        names = frozenset.intersection(*known) if known else None
        short, long = sorted((self.prefix, other.prefix), key=len)
        return ScanBounds(
            _stricter(max, self.start, other.start),
            _stricter(min, self.stop, other.stop),
            _stricter(max, self.first_position, other.first_position),
            _stricter(min, self.stop_position, other.stop_position),
            names if long.startswith(short) else frozenset(),
            long,
        )

    def either(self, other: ScanBounds) -> ScanBounds:
        """The bounds of a disjunction."""
        alike = self.prefix == other.prefix
        names = None
        if self.names is not None and other.names is not None:
            names = self._named() | other._named()
        return ScanBounds(
            _looser(min, self.start, other.start),
            _looser(max, self.stop, other.stop),
            _looser(min, self.first_position, other.first_position),
            _looser(max, self.stop_position, other.stop_position),
            names,
            self.prefix if alike else "",
        )

    def _named(self) -> frozenset[str]:
        return frozenset(name for name in self.names or () if name.startswith(self.prefix))

    def among(self, store: EventReader) -> list[str] | None:
        """The aggregates to read; None for all."""
        if self.names is not None:
            return sorted(self._named())
        return [name for name in store.aggregate_ids() if name.startswith(self.prefix)] if self.prefix else None


def _position(bound: int) -> int:
    return min(max(bound, 0), 2**63 - 1)


def _stricter(choose: Callable[[int, int], int], one: int | None, other: int | None) -> int | None:
    """The stricter of two bounds, either of which may be missing."""
    if one is None or other is None:
        return other if one is None else one
    return choose(one, other)


def _looser(choose: Callable[[int, int], int], one: int | None, other: int | None) -> int | None:
    """The looser of two bounds; none where one is missing."""
    return None if one is None or other is None else choose(one, other)


def bounds_of(predicate: pl.Expr) -> ScanBounds:
    """Bounds on `timestamp`, `position` and `aggregate_id` that a predicate implies; none where it cannot be read.

    Polars does not specify how it serialises expressions, so an unknown form implies nothing: the predicate is applied
    to every row in any case.
    """
    try:
        return _bounds(json.loads(predicate.meta.serialize(format="json")))
    except (pl.exceptions.PolarsError, ValueError, TypeError):
        return ScanBounds()


def _bounds(node: Any) -> ScanBounds:
    """The bounds of an expression; none if its form is unknown."""
    try:
        return _binary(node["BinaryExpr"]) if "BinaryExpr" in node else _function(node["Function"])
    except (KeyError, TypeError, IndexError, ValueError, pa.ArrowException):
        return ScanBounds()


def _binary(binary: Any) -> ScanBounds:
    left, op, right = binary["left"], binary["op"], binary["right"]
    if op in ("And", "LogicalAnd"):
        return _bounds(left).both(_bounds(right))
    if op in ("Or", "LogicalOr"):
        return _bounds(left).either(_bounds(right))
    if "Column" in left:
        return _comparison(left["Column"], op, right)
    return _comparison(right["Column"], _MIRROR[op], left)


def _function(function: Any) -> ScanBounds:
    column, *inputs = function["input"]
    name, what = column["Column"], function["function"]
    if name == "aggregate_id" and what.get("StringExpr") == "StartsWith":
        return ScanBounds(prefix=_literal(inputs[0])["String"])
    if "IsBetween" in what["Boolean"]:
        closed = what["Boolean"]["IsBetween"]["closed"]
        lower = _comparison(name, "GtEq" if closed in ("Both", "Left") else "Gt", inputs[0])
        return lower.both(_comparison(name, "LtEq" if closed in ("Both", "Right") else "Lt", inputs[1]))
    if name == "aggregate_id" and "IsIn" in what["Boolean"]:
        content = bytes(_literal(inputs[0])["List"])  # a list of literals, as an Arrow stream of this process
        values = pa.ipc.open_stream(content).read_all().column(0).to_pylist()
        if all(isinstance(value, str) for value in values):
            return ScanBounds(names=frozenset(values))
    return ScanBounds()


def _literal(node: Any) -> Any:
    if "Alias" in node:
        node = node["Alias"][0]
    literal = node["Literal"]
    return literal["Scalar"] if "Scalar" in literal else literal["Dyn"]


def _comparison(column: str, op: str, literal: Any) -> ScanBounds:
    value = _literal(literal)
    if column == "aggregate_id" and op == "Eq":
        return ScanBounds(names=frozenset([value["String"]]))
    if column == "timestamp":
        count, unit, _ = value["Datetime"]
        # Compared with a literal in µs, Polars takes 1.5 µs for 1 µs.
        return ScanBounds(*_range(op, count * _NS[unit], (count + 1) * _NS[unit]))
    if column == "position":
        (count,) = value.values()
        if type(count) is int:
            first, stop = _range(op, count, count + 1)
            return ScanBounds(first_position=first, stop_position=stop)
    return ScanBounds()


def _range(op: str, at: int, after: int) -> tuple[int | None, int | None]:
    """First and stop of the values that compare so with a literal in ``at:after``."""
    return {
        "Gt": (at + 1, None),
        "GtEq": (at, None),
        "Lt": (None, at),
        "LtEq": (None, after),
        "Eq": (at, after),
    }.get(op, (None, None))
