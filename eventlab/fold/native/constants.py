"""Layout of the arrays that a fold shares with its kernels."""

from eventlab.fold.declare.layout import Keyed

NULL_TEXT = -1
"""The code of missing text. The empty string has code 0 in every fold, so that zeroed memory reads as empty."""

META = 7
"""Length of a table's meta block: first row, last row, first free row, rows ever used, live rows, first row released
during this event, and how often keys were added or removed."""
HEAD, TAIL, FREE, USED, LIVE, PENDING, CHANGES = range(META)

LADDER_META = 2
"""Length of a ladder's meta block: rank of the best level (one past the worst where the side is empty), and levels."""

NONE = -1
"""No row."""

INDEX = Keyed("key", first=int, last=int, count=int)
"""A queue's index: the oldest row, the newest row and the number of rows of every key that has some."""
INDEX_DTYPE = INDEX.row_dtype
