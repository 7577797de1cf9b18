"""What two states of a reducer differ in: a row for each value, compared bit by bit, where NaN equals NaN."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import pyarrow as pa

from eventlab.fold.declare.layout import Array, Keyed, Ladder, Queue
from eventlab.fold.declare.reducer import Reducer
from eventlab.timetravel.state import table_frame

CHANGE = pl.Enum(["added", "changed", "removed"])
SCHEMA = pl.Schema(
    [
        ("field", pl.String),
        ("key", pl.String),
        ("place", pl.Int64),
        ("column", pl.String),
        ("change", CHANGE),
        ("before", pl.String),
        ("after", pl.String),
        ("delta", pl.Float64),
    ]
)
_KEY, _PLACE, _NUMBER = "_key", "_place", "_number"  # no column of a table begins with an underscore


def changes(
    reducer: Reducer, before: tuple[pa.RecordBatch, pa.RecordBatch], after: tuple[pa.RecordBatch, pa.RecordBatch]
) -> pl.DataFrame:
    """The differences of two states, each given as the state and what a fold emits of it, in the order of the fields.

    Returns
    -------
    polars.DataFrame
        Columns as in `SCHEMA`.
    """
    states = [state for state, _ in (before, after)]
    emitted = [emission for _, emission in (before, after)]
    arrays = {field.name for field in reducer.layout.record if isinstance(field, Array)}
    found = [pl.DataFrame(schema=SCHEMA)]
    for name in emitted[0].schema.names:
        columns = [emission.column(name) for emission in emitted]
        one, other = (pl.Series(column.flatten() if name in arrays else column) for column in columns)
        place = pl.int_range(len(one), eager=True) if name in arrays else pl.Series([None], dtype=pl.Int64)
        rows = pl.DataFrame({"place": place, "before": one, "after": other})
        found.append(_rows(rows.with_columns(key=pl.lit(None, pl.String)), name, None, both=True))
    for table in reducer.layout.tables:
        found += _of_table(table, *(table_frame(state.column(table.name)) for state in states))
    return pl.concat(found)


def differs(before: pl.Expr, after: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Whether values differ. To Polars NaN equals NaN, which is wanted, and -0.0 equals 0.0, which is not."""
    unlike = before.ne_missing(after)
    return unlike | (1 / before).ne_missing(1 / after) if dtype.is_float() else unlike


def _rows(rows: pl.DataFrame, field: str, column: str | None, *, both: bool) -> pl.DataFrame:
    """Rows of `SCHEMA` for those of key, place, before and after that differ.

    Where not `both` are there in every row, columns `there_before` and `there_after` tell.
    """
    before, after, dtype = pl.col("before"), pl.col("after"), rows.schema["before"]
    change = pl.lit("changed", CHANGE)
    unlike = differs(before, after, dtype)
    if not both:
        gone, came = pl.col("there_after").is_null(), pl.col("there_before").is_null()
        change = (
            pl.when(came).then(pl.lit("added", CHANGE)).when(gone).then(pl.lit("removed", CHANGE)).otherwise(change)
        )
        unlike = unlike | gone | came
    wide = pl.Int128 if dtype.is_integer() else dtype  # a difference of int64 need not be one
    delta = after.cast(wide) - before.cast(wide) if dtype.is_numeric() else pl.lit(None)
    return rows.filter(unlike).select(
        field=pl.lit(field),
        key=pl.col("key").cast(pl.String),
        place="place",
        column=pl.lit(column, pl.String),
        change=change,
        before=before.cast(pl.String),
        after=after.cast(pl.String),
        delta=delta.cast(pl.Float64),
    )


def _of_table(table: Keyed | Ladder, before: pl.DataFrame, after: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """A frame for each column of a table, whose rows are matched by key."""
    key = "price" if isinstance(table, Ladder) else table.key
    columns = [name for name in before.columns if name != key]
    if isinstance(table, Queue):
        before, after = _placed(before, after, key)
        matched_by = [_KEY, _PLACE]
    else:
        before, after = (frame.with_columns(pl.lit(None, pl.Int64).alias(_PLACE)) for frame in (before, after))
        matched_by = [_KEY]
    before, after = (
        frame.select(
            pl.col(key).alias(_KEY), _PLACE, pl.lit(True).alias("there"),
            *(pl.col(name).alias(f"_{at}") for at, name in enumerate(columns)),
        )
        for frame in (before, after)
    )  # fmt: skip
    both = before.join(after, on=matched_by, how="full", coalesce=True, suffix="_after", maintain_order="left_right")
    if isinstance(table, Ladder):
        both = both.sort(_KEY, descending=table.side == "bid")
    for at, name in enumerate(columns):
        rows = both.select(
            key=_KEY, place=_PLACE, before=f"_{at}", after=f"_{at}_after",
            there_before="there", there_after="there_after",
        )  # fmt: skip
        yield _rows(rows, table.name, name, both=False)


def _placed(before: pl.DataFrame, after: pl.DataFrame, key: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A queue's rows with their places, counted per key from its oldest row before.

    Rows leave at the front and come at the end: of the ways to match what is left, the one by which the fewest left,
    where nothing but the front row was changed in place.
    """
    place = pl.int_range(pl.len()).over(key).alias(_PLACE)
    before, after = before.with_columns(place), after.with_columns(place)
    columns = [name for name in before.columns if name not in (key, _PLACE)]
    old, new = ({group: _words(rows, columns) for (group,), rows in frame.group_by(key)} for frame in (before, after))
    gone = {group: _gone(old.get(group, []), rows) for group, rows in new.items()}
    shift = pl.DataFrame({key: list(gone), _NUMBER: list(gone.values())}, schema={key: pl.String, _NUMBER: pl.Int64})
    shifted = after.join(shift, on=key, how="left", maintain_order="left")
    return before, shifted.with_columns(pl.col(_PLACE) + pl.col(_NUMBER)).drop(_NUMBER)


def _words(rows: pl.DataFrame, columns: list[str]) -> list[bytes]:
    """Each row as bytes that are equal where its bits are."""
    batch = rows.select(columns)
    parts = [
        batch[name].to_numpy().view(np.int64).tolist() if batch.schema[name].is_float() else batch[name].to_list()
        for name in columns
    ]
    return [repr(row).encode() for row in zip(*parts, strict=True)]


def _gone(before: list[bytes], after: list[bytes]) -> int:
    """How many rows left the front of a queue, at least."""
    for gone in range(max(0, len(before) - len(after)), len(before)):
        if before[gone + 1 :] == after[1 : len(before) - gone]:
            return gone
    return len(before)
