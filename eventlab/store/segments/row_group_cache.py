"""Row groups that were decoded lately, for reads of single events and short stretches: files never change."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

MOST_GROUPS = 2
"""Reads of more row groups go past: they would push out what short reads come back to."""

MOST_BYTES = 64 << 20
"""So much is kept: about a hundred row groups of five columns."""

Columns = Mapping[str, Any]
"""Arrays by column name, as formats decode them."""

_Key = tuple[str, int, str]


class Decoded:
    """The columns of row groups by file, group and name, least recently used first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, Any] = OrderedDict()
        self._bytes = 0

    def columns(
        self,
        file: str,
        groups: Sequence[int],
        names: Sequence[str],
        pieces: Sequence[tuple[int, int]] | None,
        decode: Callable[[Sequence[int]], Columns],
        rows: Sequence[int],
    ) -> dict[str, Any]:
        """Columns of row groups, of so many `rows` each, or the wanted pieces of them.

        `decode` is asked for the groups of which not all is here, for all of them at once: opening a file takes longer
        than decoding a group.
        """
        kept: dict[int, dict[str, Any]] = {}
        with self._lock:
            for group in groups:
                found = {name: self._kept.get((file, group, name)) for name in names}
                if all(array is not None for array in found.values()):
                    kept[group] = found
                    for name in names:
                        self._kept.move_to_end((file, group, name))
        missing = [group for group in groups if group not in kept]
        if missing:
            read = decode(missing)
            ends = np.cumsum([rows[groups.index(group)] for group in missing]).tolist()
            for group, start, stop in zip(missing, [0, *ends], ends, strict=False):
                kept[group] = {name: read[name][start:stop] for name in names}
                for name in names:
                    self._keep((file, group, name), kept[group][name])
        return {name: _pieces([kept[group][name] for group in groups], pieces) for name in names}

    def _keep(self, key: _Key, array: Any) -> None:
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
        with self._lock:
            if self._kept.setdefault(key, array) is array:
                self._bytes += array.nbytes
            while self._bytes > MOST_BYTES:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes


def _pieces(arrays: Sequence[Any], pieces: Sequence[tuple[int, int]] | None) -> Any:
    """The wanted pieces of arrays that follow one another, as one; rows that nobody wants are not copied."""
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
