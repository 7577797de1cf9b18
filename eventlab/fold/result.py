"""The result of a fold: states, and what was emitted on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa

from eventlab.fold.declare.reducer import Reducer

_PROPERTY_TYPES: dict[str, tuple[Any, pa.DataType]] = {
    "float": (np.float64, pa.float64()),
    "int": (np.int64, pa.int64()),
    "bool": (np.bool_, pa.bool_()),
    "str": (np.int32, pa.string()),
}


@dataclass(frozen=True, slots=True)
class Folded:
    """States after their last stop, and what was emitted at every stop, where a caller asks for it."""

    states: pa.RecordBatch
    emitted: pa.RecordBatch | None = None
    """Scalar and array fields, then properties; one row a stop."""


def concat_batches(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches of one schema, as one."""
    if not batches[0].schema.names:
        return without_columns(sum(batch.num_rows for batch in batches))
    batches = [batch for batch in batches if batch.num_rows] or batches[:1]
    if len(batches) == 1:
        return batches[0]
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


def without_columns(rows: int) -> pa.RecordBatch:
    """A batch of rows without columns."""
    return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))


def property_type(reducer: Reducer, name: str) -> tuple[Any, pa.DataType]:
    """The type in which a kernel writes a property's values, and the type of their column."""
    return _PROPERTY_TYPES[reducer.property_kinds[name]]


_schemas: WeakKeyDictionary[Reducer, pa.Schema] = WeakKeyDictionary()


def emission_schema(reducer: Reducer) -> pa.Schema:
    """Fields of the record, then properties."""
    found = _schemas.get(reducer)
    if found is None:
        fields = [f.arrow for f in reducer.layout.record]
        fields += [pa.field(name, property_type(reducer, name)[1]) for name in reducer.properties]
        found = _schemas[reducer] = pa.schema(fields)
    return found
