"""Values become event columns here, and only here: conversion to canonical Arrow types, and all checks.

The input is objects or frames; the result is a payload batch that the store can keep as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
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
    """A Polars or Arrow frame as a Polars one, without a copy where the layouts agree."""
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


def payload_from_frame(
    declared: EventType, frame: pl.DataFrame, *, ignore: Collection[str] = (), where: str = ""
) -> pa.RecordBatch:
    """Check a frame's payload columns and convert them to canonical types.

    Parameters
    ----------
    declared : EventType
    frame : polars.DataFrame
        One column per field, in any order; a field with a default may be absent. Times are UTC, with or without a
        zone, or int64 nanoseconds.
    ignore : collection of str
        Columns of the frame that are not payload.
    where : str
        Name of the source, e.g. a file, for errors.

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
    surplus = [name for name in frame.columns if name not in known and name not in ignore]
    if surplus:
        raise InvalidEvent(
            f"{prefix(where)}{declared.name} has no column {surplus[0]!r}",
            expected=", ".join(field.name for field in declared),
            hint="Select or rename columns before appending.",
        )
    arrays = []
    for field in declared:
        if field.name in frame.columns:
            series = frame[field.name]
            plain = plain_column(field, series)
            arrays.append(_checked(field, _from_series(field, series, where), where) if plain is None else plain)
        elif field.default is not REQUIRED:
            arrays.append(default_column(field, len(frame)))
        else:
            raise InvalidEvent(
                f"{prefix(where)}{declared.name} needs a column {field.name!r}", got=", ".join(frame.columns) or "none"
            )
    return pa.RecordBatch.from_arrays(arrays, schema=declared.arrow_schema)


def payload_from_objects(declared: EventType, events: Sequence[Any]) -> pa.RecordBatch:
    """Columns of a few event objects of one type; raises like :func:`payload_from_frame`."""
    arrays = []
    for field in declared:
        values = [getattr(item, field.name) for item in events]
        arrays.append(_checked(field, _from_values(field, values, declared), ""))
    return pa.RecordBatch.from_arrays(arrays, schema=declared.arrow_schema)


def default_column(field: Field, rows: int) -> pa.Array:
    """A payload column in canonical type with the field's default in every row."""
    if field.default is not None:
        value = pa.scalar(field.default, pa.string() if field.is_text else field.arrow_type)
        return _checked(field, pa.repeat(value, rows), "")
    return null_column(field, rows)


def null_column(field: Field, rows: int) -> pa.Array:
    """A payload column in canonical type that holds no value."""
    if not field.is_text:
        return pa.nulls(rows, field.arrow_type)
    return pa.DictionaryArray.from_arrays(pa.nulls(rows, pa.int32()), words_array(field.vocabulary))


_FLOATS = (-float(np.finfo(np.float64).max), float(np.finfo(np.float64).max))
_INTEGERS = (NULL_INT + 1, 2**63 - 1)
_NEWEST = pl.CompatLevel.newest()


def plain_column(field: Field, series: pl.Series) -> pa.Array | None:
    """A valid column that needs no conversion, in canonical type; None for any other.

    Most columns are plain, and this test takes a tenth of the time of the full check.
    """
    dtype = series.dtype
    if series.null_count() or not len(series):
        return None
    if field.kind == "float":
        return _within(series, field, _FLOATS) if dtype == pl.Float64 else None
    if field.kind == "int":
        return _within(series, field, _INTEGERS) if dtype == pl.Int64 else None
    if field.kind == "enum" and isinstance(dtype, pl.Enum):
        coded = series.to_arrow()
        if len(coded.dictionary) != len(field.vocabulary) or tuple(coded.dictionary.to_pylist()) != field.vocabulary:
            return None
        return pa.DictionaryArray.from_arrays(coded.indices.cast(pa.int32()), words_array(field.vocabulary))
    if dtype != pl.String or not field.is_text:
        return None
    codes, words = _coded(series)
    if field.kind == "enum":
        places = {word: code for code, word in enumerate(field.vocabulary)}
        if not places.keys() >= set(words):
            return None
        spread = np.array([places[word] for word in words], dtype=np.int32)[codes]
        return pa.DictionaryArray.from_arrays(pa.array(spread), words_array(field.vocabulary))
    if field.kind == "symbol" and "" in words:
        return None
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(words, pa.string()))


def _coded(series: pl.Series) -> tuple[np.ndarray[Any, np.dtype[np.int32]], list[str]]:
    """Codes of a text column without nulls, and the text of each code."""
    text = series.to_arrow(compat_level=_NEWEST)
    if pa.types.is_string_view(text.type):
        # Equal 16-byte views mean equal text; a column of one symbol has only equal views.
        views = np.frombuffer(text.buffers()[1], dtype=np.uint64).reshape(-1, 2)[text.offset : text.offset + len(text)]
        if (views == views[0]).all():
            return np.zeros(len(text), dtype=np.int32), [text[0].as_py()]
    coded = text.dictionary_encode()
    return coded.indices.to_numpy(), coded.dictionary.to_pylist()


def _within(series: pl.Series, field: Field, widest: tuple[float, float]) -> pa.Array | None:
    low, high = field.limits.minimum, field.limits.maximum
    array = series.to_arrow()
    values = array.to_numpy()
    # NaN if the column has one, and then every comparison fails. Python's numbers compare exactly.
    least, most = values.min().item(), values.max().item()
    bounded = (low is None or least >= low) and (high is None or most <= high)
    return array if bounded and least >= widest[0] and most <= widest[1] else None


@lru_cache(maxsize=256)
def words_array(words: tuple[str, ...]) -> pa.StringArray:
    """The words of a vocabulary as a dictionary."""
    return pa.array(words, pa.string())


def timestamps_from(column: pl.Series, *, where: str = "") -> np.ndarray[Any, np.dtype[np.int64]]:
    """A `timestamp` column (Datetime or int64 ns) as int64 nanoseconds. Nulls raise InvalidEvent."""
    dtype = column.dtype
    counts_ns = dtype == pl.Int64 or (isinstance(dtype, pl.Datetime) and dtype.time_unit == "ns")
    if counts_ns and not column.null_count():
        values = column.to_numpy().view(np.int64)
        if len(values) and values.min() >= MIN_NS and values.max() <= MAX_NS:
            return values
    ns = _time_series(column, "timestamp", where)
    _no_nulls(ns.to_arrow(), "timestamp", where)
    return ns.to_numpy()


def text_of(series: pl.Series) -> pa.DictionaryArray:
    """A Polars text column in the canonical dictionary-encoded form."""
    return pc.dictionary_encode(series.cast(pl.String).to_arrow().cast(pa.string()))


def metadata_json(metadata: Mapping[str, str] | None) -> str | None:
    """Metadata as canonical JSON, with sorted keys and without spaces; None if empty."""
    if not metadata:
        return None
    if not isinstance(metadata, Mapping):
        raise InvalidEvent("metadata maps text to text", got=metadata, hint='E.g. metadata={"desk": "alpha"}.')
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidEvent("metadata maps text to text", got={key: value}, hint="Convert values with str().")
    text = json.dumps(dict(metadata), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidEvent("metadata is not valid Unicode", got=text) from error
    return text


def metadata_column(column: pl.Series, *, where: str = "") -> pa.DictionaryArray | None:
    """A `metadata` column (JSON objects of text, or null) as canonical JSON; None if all rows are null."""
    if column.null_count() == len(column):
        return None
    if column.dtype != pl.String:
        raise wrong_type("metadata", where, column.dtype, "text")
    text = text_of(column)
    words = [_canonical(word, where) for word in text.dictionary.to_pylist()]
    if None in words or len(set(words)) < len(words):
        return text_of(pl.Series("metadata", words, dtype=pl.String).gather(pl.Series(text.indices)))
    return pa.DictionaryArray.from_arrays(text.indices, pa.array(words, pa.string()))


def _canonical(text: str, where: str) -> str | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidEvent(f"{prefix(where)}metadata cannot be read", got=text, expected="a JSON object of text")
    return metadata_json(found)


def prefix(where: str) -> str:
    """The start of an error message: the source's name and a colon, or nothing."""
    return f"{where}: " if where else ""


def wrong_type(field_name: str, where: str, got: object, expected: str) -> InvalidEvent:
    """The error for a column of another type than expected."""
    return InvalidEvent(f"{prefix(where)}column {field_name!r} has the wrong type", got=got, expected=expected)


def _refused(where: str, row: int, name: str, got: object, expected: str) -> InvalidEvent:
    return InvalidEvent(f"{prefix(where)}row {row}, column {name!r}: value refused", got=got, expected=expected)


def _from_series(field: Field, series: pl.Series, where: str) -> pa.Array:
    dtype = series.dtype
    if dtype == pl.Null and (field.nullable or len(series) == 0):
        return pa.nulls(len(series), pa.string()) if field.is_text else pa.nulls(len(series), field.arrow_type)
    if field.kind == "float":
        if not (dtype.is_numeric() or dtype.is_decimal()):
            raise wrong_type(field.name, where, dtype, "numbers")
        return _floats(series, field.name, where).to_arrow()
    if field.kind == "int":
        if not dtype.is_integer():
            raise wrong_type(field.name, where, dtype, "integers")
        return _int64(series, field.name, where).to_arrow()
    if field.kind == "bool":
        if dtype != pl.Boolean:
            raise wrong_type(field.name, where, dtype, "booleans")
        return series.rechunk().to_arrow()
    if field.kind == "time":
        return _time_series(series, field.name, where).to_arrow().view(field.arrow_type)
    if dtype not in (pl.String, pl.Categorical) and not isinstance(dtype, pl.Enum):
        raise wrong_type(field.name, where, dtype, "text")
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
            raise _refused(where, rounded[0], name, series[rounded[0]], "a number that float64 represents exactly")
    return floats.rechunk()


def _int64(series: pl.Series, name: str, where: str) -> pl.Series:
    integers = series.cast(pl.Int64, strict=False)
    lost = (integers.is_null() & series.is_not_null()).arg_true()
    if len(lost):
        raise _refused(where, lost[0], name, series[lost[0]], "an int64 above -2**63")
    return integers.rechunk()


_PER_UNIT = {"ns": 1, "us": 1_000, "ms": 1_000_000}


def _time_series(series: pl.Series, name: str, where: str) -> pl.Series:
    """Times as int64 nanoseconds; nulls stay null."""
    dtype = series.dtype
    if isinstance(dtype, pl.Datetime):
        # Polars' own cast panics on overflow.
        count, per_unit = series.to_physical(), _PER_UNIT[dtype.time_unit]
    elif dtype.is_integer():
        count, per_unit = _int64(series, name, where), 1
    else:
        raise wrong_type(name, where, dtype, "Datetime or int64 nanoseconds")
    outside = (~count.is_between(-(-MIN_NS // per_unit), MAX_NS // per_unit)).arg_true()
    if len(outside):
        row, unit = outside[0], dtype.time_unit if isinstance(dtype, pl.Datetime) else "ns"
        expected = "a time that fits into int64 nanoseconds, 1677 to 2262"
        raise _refused(where, row, name, f"{count[row]} {unit} since 1970", expected)
    return (count * per_unit).rechunk()


def _from_values(field: Field, values: list[Any], declared: EventType) -> pa.Array:
    if field.kind == "time":
        ns = [_moment(field, row, value, declared) for row, value in enumerate(values)]
        return pa.array(ns, pa.int64()).cast(field.arrow_type)
    wanted = pa.string() if field.is_text else field.arrow_type
    for row, value in enumerate(values):
        if value is not None and not _is_of_kind(field.kind, value):
            raise _wrong_value(field, row, value, declared)
    try:
        return pa.array(values, wanted)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError) as error:
        row = next(row for row, value in enumerate(values) if not _fits(value, wanted))
        raise _wrong_value(field, row, values[row], declared) from error


def _wrong_value(field: Field, row: int, value: object, declared: EventType) -> InvalidEvent:
    what = f"row {row}, column {field.name!r}: wrong type for {declared.name}"
    return InvalidEvent(what, got=value, expected=field.kind)


def _moment(field: Field, row: int, value: Any, declared: EventType) -> int | None:
    try:
        return None if value is None else to_ns(value, what=field.name)
    except AsOfError as error:
        raise InvalidEvent(
            f"row {row}, {declared.name}: {error.what}", got=error.got, expected=error.expected, hint=error.hint
        ) from error


def _is_of_kind(kind: Kind, value: Any) -> bool:
    # PyArrow would silently convert True to 1.0, 1 to True, 1.5 to 1 and bytes to text.
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


def _no_nulls(array: pa.Array, name: str, where: str) -> None:
    if array.null_count:
        row = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        raise InvalidEvent(f"{prefix(where)}row {row}, column {name!r}: null", expected="a value in every row")


def _refuse(bad: pa.Array | np.ndarray[Any, Any], array: pa.Array, field: Field, where: str, expected: str) -> None:
    flags = bad if isinstance(bad, np.ndarray) else bad.fill_null(False).to_numpy(zero_copy_only=False)
    if flags.any():
        row = int(np.flatnonzero(flags)[0])
        raise _refused(where, row, field.name, array[row].as_py(), expected)


def _checked(field: Field, array: pa.Array, where: str) -> pa.Array:
    if not field.nullable:
        _no_nulls(array, field.name, where)
    low, high = field.limits.minimum, field.limits.maximum
    if field.kind == "float":
        # One pass finds NaN and infinities too: NaN fails every comparison, and infinities are out of bounds.
        floor = -np.finfo(np.float64).max if low is None else float(low)
        ceiling = np.finfo(np.float64).max if high is None else high
        values = (pc.fill_null(array, floor) if array.null_count else array).to_numpy()
        bounds = "" if low is None and high is None else f", {_bounds(low, high)}"
        _refuse(~((values >= floor) & (values <= ceiling)), array, field, where, f"a finite number{bounds}")
    elif field.kind == "int":
        _refuse(pc.equal(array, NULL_INT), array, field, where, "an int64 above -2**63")
        if low is not None or high is not None:
            # Integer bounds, since Arrow compares integers with fractions as floats, which is not exact.
            values = (pc.fill_null(array, 0) if array.null_count else array).to_numpy()
            outside = np.zeros(len(values), dtype=np.bool_)
            if low is not None and np.isfinite(low):
                outside |= values < math.ceil(low)
            if high is not None and np.isfinite(high):
                outside |= values > math.floor(high)
            if array.null_count:
                outside &= array.is_valid().to_numpy(zero_copy_only=False)
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
