"""The pages of an archive file: numbers or words of one row group, each with a checksum.

Numbers go through pcodec, whose statistics are taken over a chunk of several pages, all of one type; a page can be
read without the others. Words are lengths and UTF-8 bytes, compressed with zstd.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventlab.errors import StoreError
from eventlab.store.blocks import Int64Array

CHUNK_PAGES = 16
"""Pages that share statistics. Single pages of 16,384 numbers take 3% more bytes; longer chunks save nothing."""

_LEVEL = 12  # 1% smaller than level 10, in three times as long: an archive is written once
_DTYPES: dict[str, np.dtype[Any]] = {
    "i64": np.dtype("<i8"),
    "f64": np.dtype("<f8"),
    "u32": np.dtype("<u4"),
    "u16": np.dtype("<u2"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_ZSTD = "zstd"

Numbers = npt.NDArray[Any]


def codec() -> Any:
    """Import the package that packs numbers.

    Raises
    ------
    StoreError
        It is not installed.
    """
    try:
        import pcodec
        import pcodec.wrapped
    except ImportError as error:
        raise StoreError(
            "the archive codec needs the package pcodec, which is not installed",
            hint='Install it: pip install "eventlab[archive]".',
        ) from error
    return pcodec


def packed_size(numbers: Numbers) -> int:
    """About how many bytes numbers take, to compare encodings."""
    made = codec()
    return len(made.standalone.simple_compress(np.ascontiguousarray(numbers), made.ChunkConfig()))


@dataclass(frozen=True, slots=True, eq=False)
class Pages:
    """Where the pages of a part of a column are, and what they contain.

    Attributes
    ----------
    start : int
        First byte of the first page; the others follow it.
    counts : int64 array
        Numbers or words in each page. A page of none takes no bytes.
    sizes, checks : int64 array
        Bytes of each page, and their CRC-32.
    kinds, heads : sequence of str and of bytes
        Of each chunk of numbers: their type; the version of pcodec's format and its metadata.
    """

    start: int
    counts: Int64Array
    sizes: Int64Array
    checks: Int64Array
    kinds: Sequence[str] = ()
    heads: Sequence[bytes] = ()

    @property
    def one_for_all(self) -> bool:
        """Whether there is one page, which all row groups use."""
        return len(self.counts) == 1

    def described(self) -> dict[str, Any]:
        """All but the arrays, for a footer."""
        heads = [len(head) for head in self.heads]
        return {"start": self.start, "pages": len(self.counts), "kinds": self.kinds, "heads": heads}

    def packed(self) -> bytes:
        """The arrays, for a footer."""
        arrays = (array.astype("<u4").tobytes() for array in (self.counts, self.sizes, self.checks))
        return b"".join((*arrays, *self.heads))

    @classmethod
    def unpacked(cls, described: dict[str, Any], raw: memoryview) -> tuple[Self, memoryview]:
        """Parse a footer; return also what follows."""
        pages, lengths = described["pages"], described["heads"]
        counts, sizes, checks = np.frombuffer(raw, "<u4", 3 * pages).astype(np.int64).reshape(3, pages)
        raw, heads = raw[12 * pages :], []
        for length in lengths:
            heads.append(bytes(raw[:length]))
            raw = raw[length:]
        return cls(described["start"], counts, sizes, checks, described["kinds"], heads), raw

    def ranges(self, numbers: Sequence[int]) -> list[tuple[int, int]]:
        """Where some pages begin and end in the file."""
        ends = self.start + np.concatenate([[0], np.cumsum(self.sizes)])
        return list(zip(ends[numbers].tolist(), ends[1:][numbers].tolist(), strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class FetchedPages:
    """Pages by ascending number, and the bytes of each."""

    pages: Pages
    numbers: Sequence[int]
    contents: Sequence[memoryview]

    def checked(self) -> Iterator[tuple[int, bytes]]:
        """The number and bytes of each page. Raises ValueError if a checksum is wrong."""
        for number, content in zip(self.numbers, self.contents, strict=True):
            if len(content) != self.pages.sizes[number] or zlib.crc32(content) != self.pages.checks[number]:
                raise ValueError("wrong checksum")
            yield number, bytes(content)


def pack_numbers(chunks: Sequence[Numbers], counts: Int64Array, firsts: Int64Array) -> tuple[Pages, list[bytes]]:
    """Numbers of each chunk in pages of the given counts; `firsts` are the first pages of the chunks."""
    made = codec()
    pages: list[bytes] = []
    heads: list[bytes] = []
    for numbers, sizes in zip(chunks, np.split(counts, firsts[1:]), strict=True):
        if not len(numbers):
            heads.append(b"")
            pages += [b""] * len(sizes)
            continue
        config = made.ChunkConfig(
            compression_level=_LEVEL, paging_spec=made.PagingSpec.exact_page_sizes(sizes[sizes > 0].tolist())
        )
        file = made.wrapped.FileCompressor()
        chunk = file.chunk_compressor(np.ascontiguousarray(numbers), config)
        heads.append(file.write_header() + chunk.write_meta())
        filled = itertools.count()
        pages += [chunk.write_page(next(filled)) if count else b"" for count in sizes.tolist()]
    kinds = [_NAMES[numbers.dtype.newbyteorder("<")] for numbers in chunks]
    return _pages(counts, pages, kinds, heads), pages


def _pages(counts: Int64Array, pages: Sequence[bytes], kinds: Sequence[str] = (), heads: Sequence[bytes] = ()) -> Pages:
    sizes = np.array([len(page) for page in pages], dtype=np.int64)
    checks = np.array([zlib.crc32(page) for page in pages], dtype=np.int64)
    return Pages(0, np.asarray(counts, dtype=np.int64), sizes, checks, kinds, heads)


def unpack_numbers(fetched: FetchedPages, firsts: Int64Array) -> list[tuple[int, Numbers]]:
    """Decode pages of numbers: the number of each chunk that they belong to, and its values."""
    made, pages, wanted = codec(), fetched.pages, fetched.numbers
    numbers: list[tuple[int, Numbers]] = []
    chunks = np.searchsorted(firsts, wanted, "right") - 1
    place = 0
    opened: Any = None
    try:
        for (page, content), chunk in zip(fetched.checked(), chunks.tolist(), strict=True):
            if not numbers or numbers[-1][0] != chunk:
                total = int(pages.counts[wanted][chunks == chunk].sum())
                numbers.append((chunk, np.empty(total, _DTYPES[pages.kinds[chunk]])))
                place = 0
                if total:
                    head = pages.heads[chunk]
                    file, length = made.wrapped.FileDecompressor.new(head)
                    opened, _ = file.chunk_decompressor(head[length:], pages.kinds[chunk])
            if count := int(pages.counts[page]):
                progress, _ = opened.read_page_into(content, count, numbers[-1][1][place : place + count])
                if progress.n_processed != count:
                    raise ValueError("a page holds fewer numbers than it should")
                place += count
    except RuntimeError as error:  # what pcodec raises
        raise ValueError(str(error)) from error
    return numbers


def pack_words(parts: Sequence[pa.StringArray]) -> tuple[Pages, list[bytes]]:
    """One page of words for each part."""
    pages = [_packed_words(part) for part in parts]
    counts = np.array([len(part) for part in parts], dtype=np.int64)
    return _pages(counts, pages), pages


def _packed_words(words: pa.StringArray) -> bytes:
    if not len(words):
        return b""
    offsets = np.frombuffer(words.buffers()[1], "<i4", len(words) + 1 + words.offset)[words.offset :]
    text = memoryview(words.buffers()[2] or b"")[offsets[0] : offsets[-1]]
    raw = np.diff(offsets).astype("<u4").tobytes() + text
    packed: bytes = pa.compress(raw, codec=_ZSTD, asbytes=True)
    return len(raw).to_bytes(8, "little") + packed


def unpack_words(fetched: FetchedPages) -> list[pa.StringArray]:
    """Decode pages of words."""
    found = []
    for page, content in fetched.checked():
        count = int(fetched.pages.counts[page])
        if not count:
            found.append(pa.array([], pa.string()))
            continue
        raw = pa.decompress(content[8:], int.from_bytes(content[:8], "little"), codec=_ZSTD)
        offsets = np.zeros(count + 1, dtype=np.int32)
        np.cumsum(np.frombuffer(raw, "<u4", count), out=offsets[1:])
        words = pa.StringArray.from_buffers(count, pa.py_buffer(offsets), raw.slice(4 * count))
        words.validate(full=True)
        found.append(words)
    return found
