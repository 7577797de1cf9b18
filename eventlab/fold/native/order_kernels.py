"""Kernels that walk what lies in order: a table's rows by first touch, a queue's by age, a column by its values."""

from __future__ import annotations

from eventlab.fold.native.constants import HEAD, META

_LINK_NEXT = 1
_POOL_NEXT = 0


def keyed_order(links, width, meta, base, offsets, out):
    """Row numbers of every aggregate's rows in list order, shape (offsets[-1],). A row has `width` links."""
    for a in range(len(base) - 1):
        slot = meta[META * a + HEAD]
        for at in range(offsets[a], offsets[a + 1]):
            out[at] = base[a] + slot
            slot = links[(base[a] + slot) * width + _LINK_NEXT]


def queue_order(links, width, first, counts, key_offsets, base, out):
    """Row numbers of every queue's rows: by aggregate, by key, oldest first, shape (counts.sum(),)."""
    at = 0
    for a in range(len(base) - 1):
        for key in range(key_offsets[a], key_offsets[a + 1]):
            slot = first[key]
            for _ in range(counts[key]):
                out[at] = base[a] + slot
                at += 1
                slot = links[(base[a] + slot) * width + _POOL_NEXT]


def rows_until(values, sought, out):
    """One past the last of the ascending values at or below each of the ascending `sought`."""
    row, rows = 0, len(values)
    for at in range(len(sought)):
        value = sought[at]
        step = 1
        while row + step <= rows and values[row + step - 1] <= value:
            row += step
            step *= 2
        stop = min(row + step, rows)
        while row < stop:
            middle = (row + stop) >> 1
            if values[middle] <= value:
                row = middle + 1
            else:
                stop = middle
        out[at] = row
