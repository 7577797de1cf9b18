"""Upcasters convert events stored with an older version of their type to the declared version.

Stored events never change. A read passes the payload columns through one upcaster per version, up to the declared one,
and checks the result like appended columns. Versions that only add fields with defaults, allow null or widen bounds
need no upcaster.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.errors import InvalidEvent, MissingUpcaster, SchemaMismatch, UpcastError
from eventlab.events.columns import default_column, payload_from_frame
from eventlab.events.types import REQUIRED, EventType, Field, event_type

Upcasted: TypeAlias = "pl.DataFrame | pl.LazyFrame | Mapping[str, pl.Expr | None]"
F = TypeVar("F", bound=Callable[[pl.DataFrame], Any])

_PROBED = 32
"""Rows of a batch that an upcaster gets a second time, to check that it treats each row alone."""


@dataclass(frozen=True, slots=True)
class Upcaster:
    """A function from the columns of one version of an event type to those of the next."""

    type_name: str
    from_: int
    function: FunctionType
    cls: type

    def __str__(self) -> str:
        code = self.function.__code__
        place = f"{code.co_name}, {code.co_filename}:{code.co_firstlineno}"
        return f"upcaster of {self.type_name!r} from version {self.from_} to {self.from_ + 1} ({place})"


_declared: dict[tuple[str, int], Upcaster] = {}


def upcast(of: str | type, *, from_: int) -> Callable[[F], F]:
    """Declare a function that converts events from one version of a type to the next.

    Parameters
    ----------
    of : event class or its name
        Already declared, with a higher `schema_version`.
    from_ : int
        The version of the input; the output is version ``from_ + 1``.

    Returns
    -------
    callable
        A decorator for a function of one argument: a `polars.DataFrame` with the payload columns of version `from_`,
        in the types of ``lab.events``, except that closed vocabularies are text. The function returns either a mapping
        of column names to expressions, where None drops a column and other columns stay, or a frame of all columns.
        Columns with a default in the declared type may be missing.

    Raises
    ------
    UpcastError
        `from_` is not below the declared version; the decorated object is not a function of one argument; or the same
        file declares the step twice. Running a notebook cell again replaces its upcaster.
    UnknownEventType
        No event type of that name is declared.

    Notes
    -----
    A function must be deterministic and treat each row alone: it returns as many rows as it gets, in the same order,
    and a row's values do not depend on other rows. A sample of each batch is checked for this.

    Versions that only add fields with defaults, allow null, or widen bounds or vocabularies need no upcaster, and a
    chain may skip such steps. Removing a field needs one (``"name": None``), because a removed and an added field look
    like a rename.

    Upcasters are part of the fingerprint of the reducers that handle the type, so a new upcaster invalidates snapshots.

    Examples
    --------
    >>> import eventlab as el
    >>> import polars as pl
    >>> @el.event
    ... class Margin:
    ...     account: str
    ...     usd: float
    >>> lab = el.open(":memory:")
    >>> receipt = lab.append("account/1", Margin("1", 2.5))

    Later the type counts in cents, under another name:

    >>> @el.event(schema_version=2)
    ... class Margin:
    ...     account: str
    ...     cents: int
    >>> @el.upcast(Margin, from_=1)
    ... def margin_in_cents(frame):
    ...     return {"cents": (pl.col("usd") * 100).round().cast(pl.Int64), "usd": None}
    >>> receipt = lab.append("account/1", Margin("1", 300))
    >>> lab.events(Margin)["cents"].to_list()
    [250, 300]
    """
    declared = event_type(of)
    if isinstance(from_, bool) or not isinstance(from_, int) or not 1 <= from_ < declared.schema_version:
        raise UpcastError(
            f"from_ must be below the schema_version of {declared.name!r}, which is {declared.schema_version}",
            got=from_,
            hint="from_ is the version of the stored events. Increase schema_version in @el.event first.",
        )

    def declare(function: F) -> F:
        plain = cast(FunctionType, function)
        if not isinstance(function, FunctionType) or not _takes_one(plain):
            raise UpcastError(
                f"not an upcaster of {declared.name!r}", got=function, expected="a function of one argument, the frame"
            )
        made = Upcaster(declared.name, from_, plain, declared.cls)
        known = _declared.get((declared.name, from_))
        if known is not None and _is_another_place(known, made):
            raise UpcastError(f"the same step is declared twice: {made}", got=str(known), hint="Keep one of them.")
        _declared[declared.name, from_] = made
        return function

    return declare


def _takes_one(function: FunctionType) -> bool:
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return False
    return True


def _is_another_place(known: Upcaster, made: Upcaster) -> bool:
    """Whether two places of one file declare the same step. A cell or module that runs again may redeclare."""
    old, new = known.function.__code__, made.function.__code__
    same_file = old.co_filename == new.co_filename and not new.co_filename.startswith("<")
    return known.cls is made.cls and same_file and old.co_firstlineno != new.co_firstlineno


def upcasters(declared: EventType, stored_version: int = 1) -> tuple[Upcaster, ...]:
    """The upcasters from a version to the declared one, in order."""
    return tuple(
        _declared[name, version]
        for name, version in sorted(_declared)
        if name == declared.name and stored_version <= version < declared.schema_version
    )


def check_readable(stored: EventType, declared: EventType) -> None:
    """Check that events stored as one version of a type can be read as another.

    Raises
    ------
    SchemaMismatch
        The same version with other fields, or a version newer than the declared one.
    MissingUpcaster
        The versions differ by more than defaults, and there is no upcaster.
    """
    if stored is declared or stored == declared:
        return
    if stored.schema_version == declared.schema_version:
        raise other_fields(stored, declared)
    if stored.schema_version > declared.schema_version:
        raise newer(stored, declared)
    if not upcasters(declared, stored.schema_version) and (misfits := _misfits(stored, declared)):
        raise _missing(stored, declared, stored.schema_version, misfits)


def columns_needed(stored: EventType, declared: EventType, columns: tuple[str, ...]) -> tuple[str, ...]:
    """Payload columns of the stored version that are needed for some columns of the declared one."""
    names = tuple(field.name for field in stored)
    return names if upcasters(declared, stored.schema_version) else tuple(name for name in names if name in columns)


def upcast_columns(
    stored: EventType, declared: EventType, payload: Mapping[str, pa.Array], columns: tuple[str, ...], rows: int
) -> dict[str, pa.Array]:
    """Columns of the declared version, in canonical types.

    Parameters
    ----------
    stored, declared : EventType
        Two versions of one type, the older one first.
    payload : mapping of str to pyarrow.Array
        The columns ``columns_needed(stored, declared, columns)``, in the stored version's canonical types.
    columns : tuple of str
        The columns of the declared version to return.
    rows : int

    Raises
    ------
    UpcastError
        An upcaster raised, changed the number of rows, does not treat rows alone, or returned a column that does not
        fit the declared type; names type, versions, upcaster and column.
    SchemaMismatch, MissingUpcaster
        As :func:`check_readable`; also if a skipped step needs an upcaster.
    """
    check_readable(stored, declared)
    steps = upcasters(declared, stored.schema_version)
    if not steps:
        return {name: _widened(declared.field(name), stored, payload, rows) for name in columns}
    frame = pl.DataFrame([_public_column(stored.field(name), payload[name]) for name in payload])
    for step in steps:
        frame = _apply(step, frame)
    made = _checked_payload(stored, declared, steps, frame)
    return {name: made.column(name) for name in columns}


def _widened(field: Field, stored: EventType, payload: Mapping[str, pa.Array], rows: int) -> pa.Array:
    """A column without an upcaster: unchanged, its default, or recoded to a longer vocabulary."""
    if field.name not in payload:
        return default_column(field, rows)
    column = payload[field.name]
    known = stored.field(field.name).vocabulary
    if known == field.vocabulary:
        return column
    codes = pa.array([field.vocabulary.index(word) for word in known], pa.int32())
    return pa.DictionaryArray.from_arrays(codes.take(column.indices), pa.array(field.vocabulary, pa.string()))


def _public_column(field: Field, column: pa.Array) -> pl.Series:
    if field.is_text:
        return pl.Series(field.name, pc.cast(column, pa.string()), dtype=pl.String)
    return pl.Series(field.name, column, dtype=field.polars_type)


def _apply(step: Upcaster, frame: pl.DataFrame) -> pl.DataFrame:
    made = _called(step, frame)
    if len(frame) > 1:
        rows = np.arange(len(frame) - 1, -1, -max(2, len(frame) // _PROBED))
        if not _called(step, frame[rows]).equals(made[rows]):
            raise UpcastError(
                f"{step} gives other values for a row when other rows surround it",
                hint="It must be deterministic and treat each row alone: no sorting, sums or shifts over rows.",
            )
    return made


def _called(step: Upcaster, frame: pl.DataFrame) -> pl.DataFrame:
    try:
        given: object = step.function(frame)
        if isinstance(given, Mapping):
            made = _mapped(step, frame, given)
        elif isinstance(given, pl.LazyFrame):
            made = given.collect()
        elif isinstance(given, pl.DataFrame):
            made = given
        else:
            raise UpcastError(
                f"{step} returned no columns",
                got=type(given).__name__,
                expected="a polars.DataFrame, or a mapping of column names to expressions",
            )
    except UpcastError:
        raise
    except Exception as error:
        raise UpcastError(
            f"{step} failed",
            got=f"{type(error).__name__}: {error}",
            hint=f"Its argument has the columns {', '.join(frame.columns)}.",
        ) from error
    if len(made) != len(frame):
        raise UpcastError(
            f"{step} changed the number of rows",
            got=len(made),
            expected=len(frame),
            hint="Each event stays one event. For a constant column write frame.with_columns(pl.lit(...)).",
        )
    text = [name for name, dtype in made.schema.items() if dtype == pl.Categorical or isinstance(dtype, pl.Enum)]
    return made.with_columns(pl.col(text).cast(pl.String)) if text else made


def _mapped(step: Upcaster, frame: pl.DataFrame, given: Mapping[Any, Any]) -> pl.DataFrame:
    for name, value in given.items():
        if not isinstance(name, str) or not (value is None or isinstance(value, pl.Expr)):
            raise UpcastError(
                f"{step}: a mapping must have column names as keys, and expressions or None as values",
                got={name: value},
                hint="Write constants as pl.lit(...).",
            )
    made = frame.with_columns(expression.alias(name) for name, expression in given.items() if expression is not None)
    return made.drop([name for name, expression in given.items() if expression is None])


def _checked_payload(
    stored: EventType, declared: EventType, steps: tuple[Upcaster, ...], frame: pl.DataFrame
) -> pa.RecordBatch:
    misfits = _frame_misfits(stored, declared, frame)
    if misfits:
        have = {step.from_ for step in steps}
        if len(have) < declared.schema_version - stored.schema_version:
            absent = next(version for version in range(stored.schema_version, 2**63) if version not in have)
            raise _missing(stored, declared, absent, misfits)
        raise UpcastError(
            f"{steps[-1]} does not return the declared columns: {misfits[0]}",
            got=", ".join(f"{name}: {dtype}" for name, dtype in frame.schema.items()),
            expected=", ".join(f"{name}: {dtype}" for name, dtype in declared.polars_schema.items()),
            hint='Drop a column by mapping it to None: {"name": None}.',
        )
    try:
        return payload_from_frame(declared, frame)
    except InvalidEvent as error:
        raise UpcastError(
            f"{steps[-1]} returned values that do not fit {declared.name!r}: {error.what}",
            got=error.got,
            expected=error.expected,
            hint=error.hint,
        ) from error


def _frame_misfits(stored: EventType, declared: EventType, frame: pl.DataFrame) -> list[str]:
    fields = {field.name: field for field in declared}
    found = [f"column {name!r} is not a field" for name in frame.columns if name not in fields]
    found += [
        f"column {field.name!r} is missing"
        for field in declared
        if field.name not in frame.columns and field.default is REQUIRED
    ]
    for field in stored:  # an implicit conversion would hide a missing upcaster
        now = fields.get(field.name)
        if now is not None and now.kind != field.kind and field.name in frame.columns:
            before, after = (pl.String() if f.is_text else f.polars_type for f in (field, now))
            if before != after and frame[field.name].dtype == before:
                found.append(f"column {field.name!r} is still {field.kind}, not {now.kind}")
    return found


def _misfits(stored: EventType, declared: EventType) -> list[str]:
    """Reasons why events of one version need an upcaster to become the other."""
    found = []
    fields = {field.name: field for field in declared}
    for field in stored:
        now = fields.get(field.name)
        if now is None:
            found.append(f"field {field.name!r} is gone")
        elif now.kind != field.kind:
            found.append(f"field {field.name!r} was {field.kind} and is {now.kind}")
        elif field.nullable and not now.nullable:
            found.append(f"field {field.name!r} could be null")
        elif _narrowed(field, now):
            found.append(f"field {field.name!r} could hold more")
    known = {field.name for field in stored}
    new = [field.name for field in declared if field.name not in known and field.default is REQUIRED]
    return found + [f"field {name!r} is new and has no default" for name in new]


def _narrowed(old: Field, new: Field) -> bool:
    low, high = new.limits.minimum, new.limits.maximum
    return (
        (low is not None and (old.limits.minimum is None or old.limits.minimum < low))
        or (high is not None and (old.limits.maximum is None or old.limits.maximum > high))
        or not set(old.vocabulary) <= set(new.vocabulary)
    )


def _missing(stored: EventType, declared: EventType, absent: int, misfits: list[str]) -> MissingUpcaster:
    return MissingUpcaster(
        f"events of {declared.name!r} are stored with schema_version {stored.schema_version} and read as "
        f"{declared.schema_version}, but there is no upcaster from version {absent}: {'; '.join(misfits)}",
        got=described(stored),
        expected=described(declared),
        hint=f"Declare one: @el.upcast({declared.cls.__name__}, from_={absent}) def _(frame): "
        f"return {_suggestion(stored, declared)}",
    )


def _suggestion(stored: EventType, declared: EventType) -> str:
    before, now = ({field.name: field for field in version} for version in (stored, declared))
    gone = [name for name in before if name not in now]
    new = [name for name, field in now.items() if name not in before and field.default is REQUIRED]
    parts = [f'"{name}": pl.col("{gone[0]}")' if gone else f'"{name}": pl.lit(...)' for name in new]
    changed = [name for name in before if name in now and name not in gone and now[name] != before[name]]
    parts += [f'"{name}": pl.col("{name}")...' for name in changed]
    return "{" + ", ".join([*parts, *(f'"{name}": None' for name in gone)]) + "}"


def other_fields(stored: EventType, declared: EventType) -> SchemaMismatch:
    """The error for an event type that differs from the store's type of the same name and version."""
    return SchemaMismatch(
        f"{declared.name!r} was written with other fields",
        got=described(declared),
        expected=described(stored),
        hint="Increase schema_version in @el.event if the fields changed, or rename the new type. "
        "Pass the type's name as a string to read it as it was written.",
    )


def newer(stored: EventType, declared: EventType) -> SchemaMismatch:
    """The error for an event type with a newer version in the store."""
    return SchemaMismatch(
        f"the store has schema_version {stored.schema_version} of {declared.name!r}, newer than the declared one",
        got=described(declared),
        expected=described(stored),
        hint="Update the code that declares it, or pass its name as a string to read it as it was written.",
    )


def described(declared: EventType) -> str:
    """The fields and version of a type, for error messages."""
    fields = ", ".join(f"{field.name}: {field.kind}{' | None' if field.nullable else ''}" for field in declared)
    return f"{fields} (schema_version {declared.schema_version})"
