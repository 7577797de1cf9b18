"""What the formats of segment files share: a slab becomes bytes, and chosen columns of row groups are read back.

`Parquet` and `Archive` are the formats. A file ends with its footer. Columns are named as in a frame. ``position``,
``version``, ``timestamp`` (nanoseconds) and ``cause`` (negative where there is none) are int64 arrays, ``event_id`` is
a string array, ``aggregate_id`` and ``metadata`` are dictionary arrays, and payload columns come in their canonical
types. Damage raises OSError or ValueError; the caller adds the file's name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from eventlab.store.blocks import Int64Array

Pieces = Sequence[tuple[int, int]] | None
"""Which rows of the row groups read are wanted, as ``start, stop``; None for all of them."""

HEAD_BYTES = 8
"""Bytes at the beginning of a file that a format's `index` gets."""

VERSION_MAX, POSITION_MIN, TIME_MIN, TIME_MAX, VERSION_MIN, POSITION_MAX = range(6)
"""Columns of `Index.ends`."""


@dataclass(frozen=True, eq=False)
class Index:
    """The content of a footer.

    Attributes
    ----------
    columns : frozenset of str
        Names of the columns that the file holds.
    group_rows : int64 array, shape (groups + 1,)
        First row of each row group, and one past the last.
    inside : object
        What the format needs for reading.
    """

    columns: frozenset[str]
    group_rows: Int64Array
    inside: Any
    read_ends: Callable[[], Int64Array]

    @cached_property
    def ends(self) -> Int64Array:
        """Bounds of each row group, shape (groups, 6). Computed on first use, as most reads need none."""
        return self.read_ends()
