"""A cache of decoded row groups, for reads of single events and short ranges. Files never change."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from eventlab.store.blocks import Int64Array

MOST_GROUPS = 2
"""Reads of more row groups bypass the cache: they would evict what short reads come back to."""

MOST_BYTES = 64 << 20
"""The size of the cache: about a hundred row groups of five columns."""

Columns = Mapping[str, Any]
"""Arrays by column name, as a format decodes them."""

_Key = tuple[str, int, str]


class RowGroupCache:
    """Columns of row groups by file, group and name, least recently used first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrays: OrderedDict[_Key, Any] = OrderedDict()
        self._bytes = 0

    def columns(
        self,
        file: str,
        groups: Sequence[int],
        names: Sequence[str],
        pieces: Sequence[tuple[int, int]] | None,
        decode: Callable[[Sequence[int]], Columns],
        first_rows: Int64Array,
    ) -> dict[str, Any]:
        """Columns of row groups, or pieces of them; `first_rows` has each group's first row, and the file's end.

        `decode` gets all groups that are not cached in one call: opening a file takes longer than decoding a group.
        """
        cached: dict[int, dict[str, Any]] = {}
        with self._lock:
            for group in groups:
                found = {name: self._arrays.get((file, group, name)) for name in names}
                if all(array is not None for array in found.values()):
                    cached[group] = found
                    for name in names:
                        self._arrays.move_to_end((file, group, name))
        missing = [group for group in groups if group not in cached]
        if missing:
            read = decode(missing)
            ends = np.cumsum([first_rows[group + 1] - first_rows[group] for group in missing]).tolist()
            for group, start, stop in zip(missing, [0, *ends], ends, strict=False):
                cached[group] = {name: read[name][start:stop] for name in names}
                for name in names:
                    self._add((file, group, name), cached[group][name])
        return {name: rows_of([cached[group][name] for group in groups], pieces) for name in names}

    def _add(self, key: _Key, array: Any) -> None:
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
        with self._lock:
            if self._arrays.setdefault(key, array) is array:
                self._bytes += array.nbytes
            while self._bytes > MOST_BYTES:
                self._bytes -= self._arrays.popitem(last=False)[1].nbytes


def rows_of(arrays: Sequence[Any], pieces: Sequence[tuple[int, int]] | None) -> Any:
    """Pieces of consecutive arrays, as one array; other rows are not copied."""
    cut = list(arrays) if pieces is None else [part for piece in pieces for part in _parts(arrays, *piece)]
    if len(cut) == 1:
        return cut[0]
    return np.concatenate(cut) if isinstance(arrays[0], np.ndarray) else pa.concat_arrays(cut)


def _parts(arrays: Sequence[Any], start: int, stop: int) -> Iterator[Any]:
    begin = 0
    for array in arrays:
        end = begin + len(array)
        if start < end and begin < stop:
            yield array[max(start - begin, 0) : stop - begin]
        begin = end
