"""Checksums of the catalog's pages in a file of their own: SQLite keeps none, and would return a flipped bit as data.

Every commit to the catalog gives it a new random mark. The file ``catalog.checksums`` holds a mark, and the CRC-32 of
every page at that commit. While the mark is the same, no commit came after, and the pages must have these checksums.
With another mark, as after a writer that was killed, the checksums say nothing, and the next seal or close renews them.

=======  ===========================================================================
offset   ``catalog.checksums``, integers little-endian
=======  ===========================================================================
0        ``eventlab crcs 1`` and a zero byte
16       the mark, 16 bytes of text
32       u32 page size, u32 number of pages, u32 CRC-32 of each page, u32 CRC-32 of all before
=======  ===========================================================================
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import struct
import zlib
from pathlib import Path

from eventlab.errors import StoreCorrupt
from eventlab.storage import operations as disk
from eventlab.storage.local import write_new

CHECKSUMS_NAME = "catalog.checksums"

_MAGIC = b"eventlab crcs 1\0"
_HEAD = struct.Struct("<16s16sII")
_CRC = struct.Struct("<I")
_MOST_BYTES = 32 * 1024 * 1024  # a larger catalog would take longer to check than a store may take to open
_NAMED_PAGES = 8


def mark(connection: sqlite3.Connection) -> None:
    """Give the catalog a new mark, inside the transaction that changes it."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('mark', ?)", (secrets.token_hex(8),))


class PageChecksums:
    """The page checksums of one catalog; none are kept for a catalog in memory, whose `directory` is None."""

    def __init__(self, connection: sqlite3.Connection, directory: Path | None) -> None:
        self._connection = connection
        self._directory = directory
        self._written = b""

    def damage(self) -> StoreCorrupt | None:
        """What is wrong with the catalog's pages; None where they are as they were written, or no checksum says.

        Call it inside a transaction.
        """
        if self._directory is None:
            return None
        try:
            content = (self._directory / CHECKSUMS_NAME).read_bytes()
        except OSError:
            return None
        known, crc = content[: -_CRC.size], content[-_CRC.size :]
        if len(known) < _HEAD.size or crc != _CRC.pack(zlib.crc32(known)):
            return None  # torn, or damaged itself
        magic, about, size, _ = _HEAD.unpack_from(known)
        if magic != _MAGIC or about != self._mark() or (pages := self._pages()) is None:
            return None
        self._written = about
        expected = memoryview(known)[_HEAD.size :].cast("I") if size == pages[0] else None
        if expected is not None and expected.tolist() == pages[1]:
            return None
        wrong = _differing_pages(list(expected or ()), pages[1])
        return StoreCorrupt(
            f"{self._directory}: the catalog's pages are not those that were written",
            got=f"catalog.sqlite, {wrong}",
            hint="Restore the store from a copy. If the change was on purpose, remove catalog.checksums and verify.",
        )

    def write(self) -> None:
        """Renew the checksums. Call it inside a write transaction that has changed nothing."""
        if self._directory is None:
            return
        about = self._mark()
        if about == self._written or not about or (pages := self._pages()) is None:
            return
        size, checksums = pages
        content = _HEAD.pack(_MAGIC, about, size, len(checksums)) + struct.pack(f"<{len(checksums)}I", *checksums)
        path = self._directory / CHECKSUMS_NAME
        fresh = path.with_name(path.name + "-new")
        with contextlib.suppress(OSError):  # the store works without them, only damage goes unnoticed
            disk.remove(fresh)
            write_new(fresh, [content + _CRC.pack(zlib.crc32(content))], synced=False)
            disk.rename(fresh, path)
            self._written = about

    def _mark(self) -> bytes:
        row = self._connection.execute("SELECT value FROM meta WHERE key = 'mark'").fetchone()
        return b"" if row is None or not isinstance(row[0], str) else row[0].encode()

    def _pages(self) -> tuple[int, list[int]] | None:
        """Page size, and the CRC of each page; None for a catalog that is too large."""
        size, count = (
            int(self._connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_size", "page_count")
        )
        if size * count > _MOST_BYTES:
            return None
        # Through SQLite and not from the file: closing a descriptor of it would drop the locks SQLite holds on it.
        content = memoryview(self._connection.serialize())
        return size, [zlib.crc32(content[at : at + size]) for at in range(0, len(content), size)]


def _differing_pages(expected: list[int], found: list[int]) -> str:
    if len(expected) != len(found):
        return f"{len(found)} pages where {len(expected)} were written"
    pages = [number for number, (one, other) in enumerate(zip(expected, found, strict=True), 1) if one != other]
    more = ", …" if len(pages) > _NAMED_PAGES else ""
    return f"page {', '.join(map(str, pages[:_NAMED_PAGES]))}{more} of {len(found)}"
