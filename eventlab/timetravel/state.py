"""Reconstructed states: one aggregate's, with its fields as attributes, and those of many as a frame."""

from __future__ import annotations

from html import escape
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.events.clock import format_ns
from eventlab.fold.declare.layout import Array, Ladder, digest
from eventlab.fold.declare.reducer import Reducer
from eventlab.timetravel.reconstruct import Reconstructed

_SHOWN_ROWS = 10


class State:
    """The state of an aggregate at a moment. Fields and properties of its reducer are attributes; tables are frames.

    Attributes
    ----------
    version : int
        Of the last event included, handled or not; 0 before the first.
    position, timestamp : int or None
        Of that event; the time in ns UTC. None before the first.
    digest : str
        SHA-256 (hex) of the content: equal states of a reducer have equal digests, however they were reached.
    """

    __slots__ = ("_batch", "_derived", "aggregate_id", "position", "reducer", "timestamp", "version")

    def __init__(self, reducer: Reducer, found: Reconstructed) -> None:
        self.reducer, self.aggregate_id = reducer, found.aggregates[0]
        self._batch = found.states
        self._derived = {name: found.emitted.column(name)[0].as_py() for name in reducer.properties}
        self.version = int(found.marks.version[0])
        self.position = int(found.marks.position[0]) if self.version else None
        self.timestamp = int(found.marks.timestamp[0]) if self.version else None

    @property
    def digest(self) -> str:
        return digest(self._batch, 0)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._derived:
            return self._derived[name]
        layout = self.reducer.layout
        for table in layout.tables:
            if table.name == name:
                return table_frame(self._batch.column(name))
        for field in layout.record:
            if field.name == name:
                column = self._batch.column(name)
                return column.flatten().to_numpy() if isinstance(field, Array) else column[0].as_py()
        known = ", ".join([*layout.arrow_schema.names, *self._derived])
        raise AttributeError(f"{self.reducer.name} has no field {name!r}; it has {known}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.reducer.layout.arrow_schema.names, *self._derived]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, State):
            return NotImplemented
        mine = (self.reducer.name, self.aggregate_id, self.version, self.digest)
        return mine == (other.reducer.name, other.aggregate_id, other.version, other.digest)

    def __hash__(self) -> int:
        return hash((self.reducer.name, self.aggregate_id, self.version))

    def to_dict(self) -> dict[str, Any]:
        """Plain Python: version, position, timestamp (ns), every field and property; tables as lists of dicts."""
        marks = {"version": self.version, "position": self.position, "timestamp": self.timestamp}
        return {**marks, **self._batch.to_pylist()[0], **self._derived}

    def _rows(self) -> list[tuple[str, str]]:
        rows = [(one.name, _text(self._batch.column(one.name)[0].as_py())) for one in self.reducer.layout.record]
        return rows + [(name, _text(value)) for name, value in self._derived.items()]

    def _title(self) -> str:
        time = "" if self.timestamp is None else f", {format_ns(self.timestamp)}"
        return f"{self.reducer.name} of {self.aggregate_id} at version {self.version}{time}"

    def __repr__(self) -> str:
        lines = [self._title(), *(f"  {name:<18} {value}" for name, value in self._rows())]
        lines += [
            f"  {table.name:<18} {len(self._batch.column(table.name)[0])} rows" for table in self.reducer.layout.tables
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in self._rows())
        parts = [f"<b>{escape(self._title())}</b><table>{body}</table>"]
        for table in self.reducer.layout.tables:
            frame = table_frame(self._batch.column(table.name))
            head = frame.head(_SHOWN_ROWS)
            more = f" (first {_SHOWN_ROWS} of {len(frame)})" if len(frame) > _SHOWN_ROWS else ""
            kind = "levels, best first" if isinstance(table, Ladder) else "rows"
            parts.append(f"<details open><summary>{escape(table.name)}: {len(frame)} {kind}{more}</summary>")
            parts.append(f"{head._repr_html_()}</details>")
        return "".join(parts)


def _text(value: Any) -> str:
    text = f"{value:,.10g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"


def table_frame(column: pa.ListArray) -> pl.DataFrame:
    """A table of one state as a frame."""
    return pl.Series(column.flatten()).struct.unnest()


def frame_of_states(reducer: Reducer, found: Reconstructed) -> pl.DataFrame:
    """One row an aggregate: aggregate_id, version, position, timestamp, fields, properties, tables as lists."""
    none = pa.array(found.marks.version == 0)
    known = {
        "position": pa.array(found.marks.position),
        "timestamp": pa.array(found.marks.timestamp).cast(pa.timestamp("ns", "UTC")),
    }
    columns = {
        "aggregate_id": pa.array(found.aggregates, pa.string()),
        "version": pa.array(found.marks.version),
        **{name: pc.if_else(none, None, column) for name, column in known.items()},
        **dict(zip(found.emitted.schema.names, found.emitted.columns, strict=True)),
        **{table.name: found.states.column(table.name) for table in reducer.layout.tables},
    }
    return pl.DataFrame(pl.from_arrow(pa.table(columns)))
