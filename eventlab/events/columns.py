"""The one boundary at which values become event columns: conversion to canonical Arrow types, and every check.

Callers hand in objects or frames; what comes out is a payload batch that the store may keep as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.errors import AsOfError, InvalidEvent
from eventlab.events.clock import MAX_NS, MIN_NS, to_ns
from eventlab.events.types import NULL_INT, REQUIRED, EventType, Field, Kind

Frame: TypeAlias = "pl.DataFrame | pa.Table | pa.RecordBatch"


def frame_of(frame: Frame) -> pl.DataFrame:
    """A Polars or Arrow frame as a Polars one, without copying where the layouts agree."""
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, (pa.Table, pa.RecordBatch)):
        made = pl.from_arrow(frame)
        if isinstance(made, pl.DataFrame):
            return made
    raise InvalidEvent(
        "not a frame",
        got=type(frame).__name__,
        expected="polars.DataFrame, pyarrow.Table or pyarrow.RecordBatch",
        hint="Collect a LazyFrame first; convert pandas with pl.from_pandas.",
    )


def payload_from_frame(declared: EventType, frame: pl.DataFrame, *, where: str = "") -> pa.RecordBatch:
    """Check a frame's payload columns and bring them into canonical types.

    Parameters
    ----------
    declared : EventType
    frame : polars.DataFrame
        One column per field, in any order; a field with a default may be absent. Times are UTC, with or without a
        zone, or int64 nanoseconds.
    where : str
        The source, e.g. a file, named in errors.

    Returns
    -------
    pyarrow.RecordBatch
        Columns as in ``declared.arrow_schema``.

    Raises
    ------
    InvalidEvent
        A missing or surplus column, a wrong dtype, or a value out of bounds: names row, column and value.
    """
    known = {field.name for field in declared}
    surplus = [name for name in frame.columns if name not in known]
    if surplus:
        raise InvalidEvent(
            f"{within(where)}{declared.name} has no column {surplus[0]!r}",
            expected=", ".join(field.name for field in declared),
            hint="Select or rename columns before appending.",
        )
    arrays = []
    for field in declared:
        if field.name in frame.columns:
            array = _from_series(field, frame[field.name], where)
        elif field.default is not REQUIRED:
            array = _constant(field, len(frame))
        else:
            raise InvalidEvent(
                f"{within(where)}{declared.name} needs a column {field.name!r}", got=", ".join(frame.columns) or "none"
            )
        arrays.append(_checked(field, array, where))
    return pa.RecordBatch.from_arrays(arrays, schema=declared.arrow_schema)


def payload_from_objects(declared: EventType, events: Sequence[Any]) -> pa.RecordBatch:
    """Columns of a few event objects of one type; raises like :func:`payload_from_frame`."""
    arrays = []
    for field in declared:
        values = [getattr(item, field.name) for item in events]
        arrays.append(_checked(field, _from_values(field, values, declared), ""))
    return pa.RecordBatch.from_arrays(arrays, schema=declared.arrow_schema)


def timestamps_from(column: pl.Series, *, where: str = "") -> np.ndarray[Any, np.dtype[np.int64]]:
    """A `timestamp` column (Datetime or int64 ns) as int64 nanoseconds; nulls are refused."""
    ns = _time_series(column, "timestamp", where)
    _no_nulls(ns.to_arrow(), "timestamp", where)
    return ns.to_numpy()


def text_of(series: pl.Series) -> pa.DictionaryArray:
    """A Polars text column in the canonical dictionary-encoded form."""
    return pc.dictionary_encode(series.cast(pl.String).to_arrow().cast(pa.string()))


def metadata_json(metadata: Mapping[str, str] | None) -> str | None:
    """Metadata as canonical JSON: sorted keys, no spaces; None where there is none."""
    if not metadata:
        return None
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidEvent("metadata maps text to text", got={key: value}, hint="Convert values with str().")
    text = json.dumps(dict(metadata), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidEvent("metadata that is no valid Unicode text", got=text) from error
    return text


def within(where: str) -> str:
    """How a message begins that is about a part of a source; nothing where the source has no name."""
    return f"{where}: " if where else ""


def _wrong_type(field_name: str, where: str, got: object, expected: str) -> InvalidEvent:
    return InvalidEvent(f"{within(where)}column {field_name!r} has the wrong type", got=got, expected=expected)


def _from_series(field: Field, series: pl.Series, where: str) -> pa.Array:
    dtype = series.dtype
    if dtype == pl.Null and (field.nullable or len(series) == 0):
        return pa.nulls(len(series), pa.string()) if field.is_text else pa.nulls(len(series), field.arrow_type)
    if field.kind == "float":
        if not (dtype.is_numeric() or dtype.is_decimal()):
            raise _wrong_type(field.name, where, dtype, "numbers")
        return _floats(series, field.name, where).to_arrow()
    if field.kind == "int":
        if not dtype.is_integer():
            raise _wrong_type(field.name, where, dtype, "integers")
        return _whole(series, field.name, where).to_arrow()
    if field.kind == "bool":
        if dtype != pl.Boolean:
            raise _wrong_type(field.name, where, dtype, "booleans")
        return series.rechunk().to_arrow()
    if field.kind == "time":
        return _time_series(series, field.name, where).to_arrow().view(field.arrow_type)
    if dtype not in (pl.String, pl.Categorical) and not isinstance(dtype, pl.Enum):
        raise _wrong_type(field.name, where, dtype, "text")
    if isinstance(dtype, pl.Enum) and tuple(dtype.categories) == field.vocabulary:
        codes = series.to_physical().cast(pl.Int32).rechunk().to_arrow()
        return pa.DictionaryArray.from_arrays(codes, pa.array(field.vocabulary, pa.string()))
    return series.cast(pl.String).rechunk().to_arrow()


def _floats(series: pl.Series, name: str, where: str) -> pl.Series:
    floats = series.cast(pl.Float64)
    extremes = (series.min(), series.max()) if series.dtype.is_integer() and series.count() else ()
    if any(abs(cast(int, extreme)) > 2**53 for extreme in extremes):
        rounded = floats.cast(series.dtype, strict=False).ne_missing(series).arg_true()
        if len(rounded):
            row = rounded[0]
            raise InvalidEvent(
                f"{within(where)}row {row}, column {name!r}: value refused",
                got=series[row],
                expected="a number that a float64 holds exactly",
            )
    return floats.rechunk()


def _whole(series: pl.Series, name: str, where: str) -> pl.Series:
    whole = series.cast(pl.Int64, strict=False)
    lost = (whole.is_null() & series.is_not_null()).arg_true()
    if len(lost):
        row = lost[0]
        raise InvalidEvent(
            f"{within(where)}row {row}, column {name!r}: value refused",
            got=series[row],
            expected="an int64 above -2**63",
        )
    return whole.rechunk()


_PER_UNIT = {"ns": 1, "us": 1_000, "ms": 1_000_000}


def _time_series(series: pl.Series, name: str, where: str) -> pl.Series:
    """Times as int64 nanoseconds; nulls stay."""
    dtype = series.dtype
    if isinstance(dtype, pl.Datetime):
        # Not Polars' own cast: it panics on what does not fit.
        count, per_unit = series.to_physical(), _PER_UNIT[dtype.time_unit]
    elif dtype.is_integer():
        count, per_unit = _whole(series, name, where), 1
    else:
        raise _wrong_type(name, where, dtype, "Datetime or int64 nanoseconds")
    outside = (~count.is_between(-(-MIN_NS // per_unit), MAX_NS // per_unit)).arg_true()
    if len(outside):
        row, unit = outside[0], dtype.time_unit if isinstance(dtype, pl.Datetime) else "ns"
        raise InvalidEvent(
            f"{within(where)}row {row}, column {name!r}: value refused",
            got=f"{count[row]} {unit} since 1970",
            expected="a moment that int64 nanoseconds hold, 1677 to 2262",
        )
    return (count * per_unit).rechunk()


def _from_values(field: Field, values: list[Any], declared: EventType) -> pa.Array:
    if field.kind == "time":
        ns = [_moment(field, row, value, declared) for row, value in enumerate(values)]
        return pa.array(ns, pa.int64()).cast(field.arrow_type)
    wanted = pa.string() if field.is_text else field.arrow_type
    for row, value in enumerate(values):
        if value is not None and not _is_meant(field.kind, value):
            raise InvalidEvent(
                f"row {row}, column {field.name!r}: {declared.name} has another type there",
                got=value,
                expected=field.kind,
            )
    try:
        return pa.array(values, wanted)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError) as error:
        row = next(row for row, value in enumerate(values) if not _fits(value, wanted))
        raise InvalidEvent(
            f"row {row}, column {field.name!r}: {declared.name} has another type there",
            got=values[row],
            expected=field.kind,
        ) from error


def _moment(field: Field, row: int, value: Any, declared: EventType) -> int | None:
    try:
        return None if value is None else to_ns(value, what=field.name)
    except AsOfError as error:
        raise InvalidEvent(
            f"row {row}, {declared.name}: {error.what}", got=error.got, expected=error.expected, hint=error.hint
        ) from error


def _is_meant(kind: Kind, value: Any) -> bool:
    # PyArrow would take True for 1.0, 1 for True, 1.5 for 1 and bytes for text; none is what was meant.
    if isinstance(value, (bool, np.bool_)):
        return kind == "bool"
    if kind == "int":
        return not isinstance(value, (float, np.floating))
    return kind in ("bool", "float") or isinstance(value, str)


def _fits(value: Any, wanted: pa.DataType) -> bool:
    try:
        pa.array([value], wanted)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        return False
    return True


def _constant(field: Field, rows: int) -> pa.Array:
    wanted = pa.string() if field.is_text else field.arrow_type
    return pa.nulls(rows, wanted) if field.default is None else pa.repeat(pa.scalar(field.default, wanted), rows)


def _no_nulls(array: pa.Array, name: str, where: str) -> None:
    if array.null_count:
        row = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        raise InvalidEvent(f"{within(where)}row {row}, column {name!r}: null", expected="a value in every row")


def _refuse(bad: pa.Array | np.ndarray[Any, Any], array: pa.Array, field: Field, where: str, expected: str) -> None:
    flags = bad if isinstance(bad, np.ndarray) else bad.fill_null(False).to_numpy(zero_copy_only=False)
    if flags.any():
        row = int(np.flatnonzero(flags)[0])
        raise InvalidEvent(
            f"{within(where)}row {row}, column {field.name!r}: value refused", got=array[row].as_py(), expected=expected
        )


def _checked(field: Field, array: pa.Array, where: str) -> pa.Array:
    if not field.nullable:
        _no_nulls(array, field.name, where)
    low, high = field.limits.minimum, field.limits.maximum
    if field.kind == "float":
        # One pass: NaN fails every comparison and infinities lie outside, so the bounds say it all.
        floor = -np.finfo(np.float64).max if low is None else low
        ceiling = np.finfo(np.float64).max if high is None else high
        values = (pc.fill_null(array, floor) if array.null_count else array).to_numpy()
        bounds = "" if low is None and high is None else f", {_bounds(low, high)}"
        _refuse(~((values >= floor) & (values <= ceiling)), array, field, where, f"a finite number{bounds}")
    elif field.kind == "int":
        _refuse(pc.equal(array, NULL_INT), array, field, where, "an int64 above -2**63")
        if low is not None or high is not None:
            outside = pc.or_(
                pc.less(array, low if low is not None else NULL_INT),
                pc.greater(array, high if high is not None else 2**63 - 1),
            )
            _refuse(outside, array, field, where, _bounds(low, high))
    elif field.kind == "enum" and not pa.types.is_dictionary(array.type):
        codes = pc.index_in(array, value_set=pa.array(field.vocabulary, pa.string()))
        unknown = pc.and_(codes.is_null(), array.is_valid())
        _refuse(unknown, array, field, where, " | ".join(field.vocabulary))
        return pa.DictionaryArray.from_arrays(codes, pa.array(field.vocabulary, pa.string()))
    elif field.kind in ("symbol", "string"):
        text = pc.dictionary_encode(array.cast(pa.string()))
        if field.kind == "symbol":
            _refuse(pc.equal(array, ""), array, field, where, "a non-empty symbol")
        return text
    return array


def _bounds(low: float | None, high: float | None) -> str:
    if high is None:
        return f"at least {low:g}"
    return f"at most {high:g}" if low is None else f"between {low:g} and {high:g}"
