"""What a segment file's format must do: lay a slab out as bytes, and read chosen columns of chosen row groups back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import pyarrow as pa

from eventlab.events.types import Field
from eventlab.store.blocks import Int64Array, Slab

Pieces = Sequence[tuple[int, int]] | None
"""Which rows of the row groups read are wanted, as ``start, stop``; None for all of them."""

VERSION_MAX, POSITION_MIN, TIME_MIN, TIME_MAX, VERSION_MIN, POSITION_MAX = range(6)
"""Columns of `Index.ends`."""


@dataclass(frozen=True, eq=False)
class Index:
    """What a footer says.

    Attributes
    ----------
    columns : frozenset of str
        Names of the columns that the file holds.
    group_rows : int64 array, shape (groups + 1,)
        First row of each row group, and one past the last.
    inside : object
        What the format itself needs to read.
    """

    columns: frozenset[str]
    group_rows: Int64Array
    inside: Any
    read_ends: Callable[[], Int64Array]

    @cached_property
    def ends(self) -> Int64Array:
        """Bounds of each row group, shape (groups, 6); worked out when first asked for: most reads need none."""
        return self.read_ends()


class Format(Protocol):
    """One way to lay out a segment file. The footer is the file's end, and holds all that `index` needs.

    Columns are named as in a frame. ``position``, ``version``, ``timestamp`` (nanoseconds) and ``cause`` (negative
    where there is none) are int64 arrays, ``event_id`` is a string array, ``aggregate_id`` and ``metadata`` are
    dictionary arrays, and payload columns come in their canonical types.

    Damage is told by OSError or ValueError; who reads the file names it.
    """

    suffix: str

    def write(self, slab: Slab, name_of: Callable[[int], str]) -> tuple[pa.Buffer, int]:
        """A file's content, and the length of its footer."""

    def index(self, source: pa.NativeFile, footer: pa.Buffer) -> Index:
        """What a footer says, whose checksum was found right."""

    def read(
        self,
        source: pa.NativeFile,
        index: Index,
        groups: Sequence[int],
        pieces: Pieces,
        wanted: Mapping[str, Field | None],
    ) -> dict[str, Any]:
        """The columns in `wanted`, all of which the file holds; `wanted` says what payload columns are."""
