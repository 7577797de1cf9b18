"""Row groups that were decoded lately, for reads of single events and short stretches: files never change."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
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
        decode: Callable[[int, Sequence[str]], Columns],
    ) -> dict[str, Any]:
        """Columns of row groups, or the wanted pieces of them; `decode` is asked for what is not here."""
        found = [self._group(file, group, names, decode) for group in groups]
        return {name: _pieces([columns[name] for columns in found], pieces) for name in names}

    def _group(
        self, file: str, group: int, names: Sequence[str], decode: Callable[[int, Sequence[str]], Columns]
    ) -> Columns:
        columns = {}
        with self._lock:
            for name in names:
                array = self._kept.get((file, group, name))
                if array is not None:
                    self._kept.move_to_end((file, group, name))
                    columns[name] = array
        missing = [name for name in names if name not in columns]
        if missing:
            for name, array in decode(group, missing).items():
                columns[name] = array
                self._keep((file, group, name), array)
        return columns

    def _keep(self, key: _Key, array: Any) -> None:
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
        with self._lock:
            if self._kept.setdefault(key, array) is array:
                self._bytes += array.nbytes
            while self._bytes > MOST_BYTES:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes


def _pieces(arrays: Sequence[Any], pieces: Sequence[tuple[int, int]] | None) -> Any:
    if len(arrays) == 1:
        whole = arrays[0]
    elif isinstance(arrays[0], np.ndarray):
        whole = np.concatenate(arrays)
    else:
        whole = pa.concat_arrays(arrays)
    if pieces is None:
        return whole
    if len(pieces) == 1:
        return whole[pieces[0][0] : pieces[0][1]]
    cut = [whole[start:stop] for start, stop in pieces]
    return np.concatenate(cut) if isinstance(whole, np.ndarray) else pa.concat_arrays(cut)
