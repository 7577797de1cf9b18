"""The storage protocol: whole files by name, written at once and read in ranges.

Segment files, snapshot files, backups and exports go through it. The journal, the catalog, locks and leases need a
local disk and do not.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Protocol, TypeAlias, runtime_checkable

import pyarrow as pa

Buffer: TypeAlias = "bytes | bytearray | memoryview | pa.Buffer"
"""Bytes in memory. What a storage returns is read-only."""

_UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.part")


class Storage(Protocol):
    """Files in one flat namespace.

    A file appears under its name only when it is complete. `write` and `create` return when its content is durable;
    its name is durable after `sync`. All methods may be called from several threads.

    Attributes
    ----------
    join_gap : int
        `ranges` reads neighbours at once if fewer bytes lie between them; with 0 it reads each range by itself.
    """

    join_gap: int

    def read(self, name: str) -> memoryview:
        """A file's content. Raises FileNotFoundError."""

    def ranges(self, name: str, wanted: Sequence[tuple[int, int]]) -> Iterator[memoryview]:
        """The bytes ``start:stop`` of a file for each range, cut at the file's end. Raises FileNotFoundError.

        A caller passes all ranges that it needs of a file at once, so that a storage can read near ones together and
        distant ones side by side. They come one by one, in the order given: a caller that decodes them on the way never
        has all of them in memory, which on a local disk is a tenth faster.
        """

    def write(self, name: str, buffers: Iterable[Buffer]) -> None:
        """Write a file, or replace it: readers see the old content or all of the new one.

        If `buffers` raises, or writing fails, nothing is changed.
        """

    def create(self, name: str, buffers: Iterable[Buffer]) -> None:
        """Write a file that does not exist yet. Raises FileExistsError; of several callers one succeeds."""

    def list(self, prefix: str = "") -> Mapping[str, int]:
        """Names that begin with `prefix`, in ascending order, and the bytes of each file."""

    def remove(self, name: str) -> None:
        """Remove a file; a missing one is no error."""

    def sync(self) -> None:
        """Make all names that were written or removed durable."""

    def sweep(self) -> Mapping[str, int]:
        """Remove what interrupted writes left, and return its names and bytes. Nobody else may be writing."""


@runtime_checkable
class SupportsArrowFiles(Protocol):
    """A storage whose files Arrow reads without Python.

    Decoding threads then do not wait for each other at the interpreter's lock. Without it they read through `ranges`.
    """

    def arrow_file(self, name: str) -> pa.NativeFile:
        """A file, opened for reading. Raises FileNotFoundError."""


def check_name(name: str) -> str:
    """Return a name that a file may have. Raises ValueError."""
    if not name or name in (".", "..") or "/" in name or "\0" in name or is_unfinished(name):
        raise ValueError(f"not the name of a file in a storage: {name!r}")
    return name


def is_unfinished(name: str) -> bool:
    """Whether a name is one that a local storage gives to files that are being written."""
    return _UNFINISHED.fullmatch(name) is not None


def read_joined(
    wanted: Sequence[tuple[int, int]], gap: int, read: Callable[[int, int], memoryview]
) -> Iterator[memoryview]:
    """Answer `Storage.ranges` with as few calls of ``read(start, stop)`` as `gap` allows."""
    if not gap:
        yield from (read(start, stop) for start, stop in wanted)
        return
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(wanted):
        if joined and start < joined[-1][1] + gap:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        else:
            joined.append((start, stop))
    contents: dict[int, memoryview] = {}
    for start, stop in wanted:
        begin, end = joined[bisect_right(joined, start, key=itemgetter(0)) - 1]
        if begin not in contents:
            contents[begin] = read(begin, end)
        yield contents[begin][start - begin : stop - begin]
