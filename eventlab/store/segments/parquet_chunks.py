"""The column chunks of a Parquet file: where they are, and how Arrow decodes them as a storage hands them out."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from eventlab.storage.api import Storage, SupportsArrowFiles


class Chunks:
    """The column chunks of a file by row group and column name."""

    def __init__(self, metadata: pq.FileMetaData) -> None:
        self.metadata = metadata
        self._numbers = {name: number for number, name in enumerate(metadata.schema.names)}
        self._places: dict[tuple[int, str], tuple[int, int]] = {}

    def places(self, groups: Sequence[int], names: Sequence[str]) -> list[tuple[int, int]]:
        """Where the chunks of some columns begin and end, in the order in which Arrow reads them."""
        return [self._place(group, name) for group in groups for name in names]

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
        self, chunks: Chunks, storage: Storage, file: str, batches: Sequence[Sequence[int]], names: Sequence[str]
    ) -> None:
        self._chunks, self._names = chunks, list(names)
        self._batches = iter(enumerate(batches))
        self._lock = threading.Lock()
        self._idle: list[tuple[_ChunkFile, pq.ParquetFile]] = []
        self._contents: Iterator[memoryview] | None = None
        if isinstance(storage, SupportsArrowFiles):
            self._source = partial(storage.arrow_file, file)
        else:  # all chunks are requested at once
            places = [place for groups in batches for place in chunks.places(groups, names)]
            self._contents = storage.ranges(file, places)

    def next(self) -> tuple[int, pa.Table]:
        """Decode the next batch, checking page checksums; returns its number and its columns."""
        with self._lock:
            number, groups = next(self._batches)
            file, reader = self._idle.pop() if self._idle else self._opened()
            if self._contents is not None:
                starts = [start for start, _ in self._chunks.places(groups, self._names)]
                file.chunks = dict(zip(starts, self._contents, strict=False))
        table = reader.read_row_groups(groups, columns=self._names, use_threads=False)
        self._idle.append((file, reader))  # opening one takes as long as decoding a row group
        return number, table

    def _opened(self) -> tuple[_ChunkFile, pq.ParquetFile]:
        file = _ChunkFile()
        source = pa.PythonFile(file, "r") if self._contents is not None else self._source()
        metadata = self._chunks.metadata
        return file, pq.ParquetFile(source, metadata=metadata, page_checksum_verification=True, pre_buffer=False)


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
