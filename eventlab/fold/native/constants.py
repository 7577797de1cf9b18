"""Numbers that the arrays of a fold and its kernels agree on."""

from __future__ import annotations

from eventlab.fold.declare.layout import Keyed

NULL_TEXT = -1
"""The code of missing text. The empty string has code 0 in every fold, so that zeroed memory reads as empty."""

META = 7
"""Words of a table's meta block: first row, last row, first free row, rows ever used, live rows, first row given back
during this event, and how often keys came or went."""
HEAD, TAIL, FREE, USED, LIVE, PENDING, CHANGES = range(META)

LADDER_META = 2
"""Words of a ladder's meta block: rank of the best level (one past the worst where the side is empty), and levels."""

NONE = -1
"""No row."""

INDEX = Keyed("key", first=int, last=int, count=int)
"""For every key that has rows in a queue: its oldest and newest row and how many there are."""
INDEX_DTYPE = INDEX.row_dtype
