"""Kernels that read tables out of a fold: rows in order of first touch, queues from oldest to newest."""

from __future__ import annotations

import numpy as np
from numba import njit

from eventlab.fold.words import HEAD, META

_LINK_NEXT = 1
_POOL_NEXT = 0


@njit(nogil=True)
def keyed_order(links, meta, base, offsets):
    """Row numbers of every aggregate's rows in list order, shape (offsets[-1],)."""
    out = np.empty(offsets[-1], np.int64)
    for a in range(len(base) - 1):
        slot = meta[META * a + HEAD]
        for at in range(offsets[a], offsets[a + 1]):
            out[at] = base[a] + slot
            slot = links[base[a] + slot, _LINK_NEXT]
    return out


@njit(nogil=True)
def queue_order(links, first, counts, key_offsets, base):
    """Row numbers of every queue's rows: by aggregate, by key, oldest first, shape (counts.sum(),)."""
    out = np.empty(counts.sum(), np.int64)
    at = 0
    for a in range(len(base) - 1):
        for key in range(key_offsets[a], key_offsets[a + 1]):
            slot = first[key]
            for _ in range(counts[key]):
                out[at] = base[a] + slot
                at += 1
                slot = links[base[a] + slot, _POOL_NEXT]
    return out
