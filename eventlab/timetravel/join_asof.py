"""Past states joined to the rows of a frame: each row gets the state as of its own time, in one pass per aggregate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from eventlab.errors import AsOfError, FeedError, InvalidEvent
from eventlab.events.aggregate_ids import Template
from eventlab.events.columns import Frame, frame_of
from eventlab.events.frame import Int64Array
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.result import emission_schema
from eventlab.store.api import EventReader
from eventlab.timetravel.history.history import history
from eventlab.timetravel.marks.routing import MarkWith
from eventlab.timetravel.moments import heads_of


def join_asof(
    store: EventReader,
    reducer: Reducer,
    frame: Frame,
    aggregate_id: str,
    *,
    on: str = "timestamp",
    suffix: str = "_right",
    mark_with: MarkWith | None = None,
    interpret: bool | None = None,
) -> pl.DataFrame:
    """A frame with the states of aggregates as of its rows' times.

    Parameters
    ----------
    frame : polars.DataFrame, pyarrow.Table or pyarrow.RecordBatch
        Rows in any order.
    aggregate_id : str
        An id, or a template over columns of text or integers.
    on : str
        The column of moments: datetimes with a time zone or ISO strings are event times, integers are versions.
    suffix : str
        For state columns that the frame has already.

    Returns
    -------
    polars.DataFrame
        The frame's columns, then version, fields and properties; null where `on` or what names the aggregate is.

    Raises
    ------
    InvalidEvent, UnknownAggregate, AsOfError, FoldError, ReducerError
    """
    whole = frame_of(frame)
    moments = _moments(whole, on)
    named = _named(whole, aggregate_id)
    names = _renamed(whole, reducer, suffix)
    known = moments.is_not_null()
    if isinstance(named, str):
        groups = [(named, known.arg_true().to_numpy().astype(np.int64))]
        heads_of(store, [named])
    else:
        groups = _groups(named, known)
        heads_of(store, named.drop_nulls().unique().sort().to_list())

    def states(aggregate: str, at: pl.Series) -> pl.DataFrame:
        return history(store, reducer, aggregate, at=at, mark_with=mark_with, interpret=interpret)

    pieces = [states(name, moments.gather(rows)).select(list(names)) for name, rows in groups if len(rows)]
    if not pieces:
        empty = pl.DataFrame(pl.from_arrow(emission_schema(reducer).empty_table()))
        pieces = [empty.insert_column(0, pl.Series("version", [], pl.Int64))]
    joined = _placed(pl.concat(pieces), [rows for _, rows in groups], len(whole))
    return whole.hstack(joined.rename(names))


def _moments(frame: pl.DataFrame, on: str) -> pl.Series:
    """The column `on` as event times or versions; what cannot be a moment is refused by history, as everywhere."""
    if not isinstance(on, str) or on not in frame.columns:
        raise InvalidEvent(
            "`on` is no column of the frame", got=on, expected=", ".join(frame.columns) or "a frame with columns"
        )
    series = frame[on]
    if series.dtype == pl.Null:
        return series.cast(pl.Int64)
    if not (isinstance(series.dtype, pl.Datetime) or series.dtype == pl.String or series.dtype.is_integer()):
        raise AsOfError(
            f"column {on!r} holds no moments", got=series.dtype,
            expected="datetimes with a time zone, ISO strings, or integers, which are versions",
        )  # fmt: skip
    if isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone is None:
        raise AsOfError(
            f"column {on!r} holds naive datetimes", got=series.dtype, expected="datetimes with a time zone",
            hint=f'Name it: pl.col({on!r}).dt.replace_time_zone("UTC").',
        )  # fmt: skip
    return series


def _named(frame: pl.DataFrame, aggregate_id: str) -> str | pl.Series:
    """The one aggregate, or each row's."""
    usable = tuple(
        name for name, dtype in frame.schema.items()
        if dtype in (pl.String, pl.Categorical, pl.Enum) or dtype.is_integer()
    )  # fmt: skip
    try:
        template = Template.parse(aggregate_id, usable)
    except FeedError as error:
        raise InvalidEvent(
            error.what, got=error.got, expected=error.expected or "columns of text or integers", hint=error.hint
        ) from None
    return template.column(frame) if template.fields else template.text


def _renamed(frame: pl.DataFrame, reducer: Reducer, suffix: str) -> dict[str, str]:
    """The state's columns, and what they are called beside the frame's."""
    if not isinstance(suffix, str):
        raise InvalidEvent("suffix is not text", got=suffix, expected="e.g. '_right'")
    taken = set(frame.columns)
    names = {
        name: f"{name}{suffix}" if name in taken else name for name in ("version", *emission_schema(reducer).names)
    }
    for name in names.values():
        if name in taken:
            raise InvalidEvent("a column would be there twice", got=name, hint="Give another suffix.")
        taken.add(name)
    return names


def _groups(named: pl.Series, known: pl.Series) -> list[tuple[str, Int64Array]]:
    """The rows of each aggregate that have a moment, aggregates in order of first appearance."""
    rows = pl.DataFrame({"name": named, "row": pl.int_range(len(named), eager=True)})
    found = rows.filter(known & named.is_not_null()).group_by("name", maintain_order=True).agg("row")
    return [(name, of.to_numpy()) for name, of in zip(found["name"], found["row"], strict=True)]


def _placed(states: pl.DataFrame, groups: Sequence[Int64Array], count: int) -> pl.DataFrame:
    """States, group after group, in the order of the rows that they belong to; null for the others."""
    rows = np.concatenate([np.empty(0, np.int64), *groups])
    if len(rows) == count and bool((rows[1:] > rows[:-1]).all()):
        return states
    place = np.full(count, -1, np.int64)
    place[rows] = np.arange(len(rows))
    at = pl.Series(place)
    return states.select(pl.all().gather(pl.lit(at.set(at < 0, None))))
