"""The column chunks of a Parquet file: where they are, and how Arrow decodes them as a storage hands them out."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from eventlab.store.segments.format import Fetch


class Chunks:
    """The column chunks of a file by row group and column name."""

    def __init__(self, metadata: pq.FileMetaData) -> None:
        self.metadata = metadata
        self._numbers = {name: number for number, name in enumerate(metadata.schema.names)}
        self._places: dict[tuple[int, str], tuple[int, int]] = {}

    def read(self, fetch: Fetch, batches: Sequence[Sequence[int]], names: Sequence[str]) -> BatchReader:
        """Read some columns of batches of row groups, whose chunks are all requested at once."""
        places = [[self._place(group, name) for group in batch for name in names] for batch in batches]
        return BatchReader(self.metadata, batches, names, places, fetch([place for batch in places for place in batch]))

    def _place(self, group: int, name: str) -> tuple[int, int]:
        # Arrow takes microseconds to look one up, so the places are cached.
        found = self._places.get((group, name))
        if found is None:
            chunk = self.metadata.row_group(group).column(self._numbers[name])
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            found = self._places[group, name] = start, start + chunk.total_compressed_size
        return found


class BatchReader:
    """Decodes one batch of row groups after the other; several threads may do so at the same time."""

    def __init__(
        self,
        metadata: pq.FileMetaData,
        batches: Sequence[Sequence[int]],
        names: Sequence[str],
        places: Sequence[Sequence[tuple[int, int]]],
        contents: Iterator[memoryview],
    ) -> None:
        self._metadata, self._names, self._contents = metadata, list(names), contents
        self._batches = iter(enumerate(zip(batches, places, strict=True)))
        self._lock = threading.Lock()
        self._idle: list[tuple[_ChunkFile, pq.ParquetFile]] = []

    def next(self) -> tuple[int, pa.Table]:
        """Decode the next batch, checking page checksums; returns its number and its columns."""
        with self._lock:
            number, (groups, places) = next(self._batches)
            contents = list(islice(self._contents, len(places)))
            file, reader = self._idle.pop() if self._idle else self._opened()
        file.chunks = {start: content for (start, _), content in zip(places, contents, strict=True)}
        table = reader.read_row_groups(groups, columns=self._names, use_threads=False)
        self._idle.append((file, reader))  # opening one takes as long as decoding a row group
        return number, table

    def _opened(self) -> tuple[_ChunkFile, pq.ParquetFile]:
        file = _ChunkFile()
        source = pa.PythonFile(file, "r")
        return file, pq.ParquetFile(source, metadata=self._metadata, page_checksum_verification=True, pre_buffer=False)


class _ChunkFile:
    """A Parquet file as Arrow sees it. Arrow gets each chunk by one `seek` and one `read`."""

    closed = False

    def __init__(self) -> None:
        self.chunks: dict[int, memoryview] = {}
        self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        # Arrow compares the file's size with its metadata. What is missing here, the read of its chunk finds out.
        self._position = offset if whence == os.SEEK_SET else sys.maxsize
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> memoryview:
        return self.chunks[self._position][:size]
