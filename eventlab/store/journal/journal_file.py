"""The file under a journal: on disk, or in memory for ``:memory:`` stores."""

from __future__ import annotations

import os
from pathlib import Path

from eventlab.storage import operations as disk


class DiskFile:
    """A file of a directory."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self._descriptor = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)

    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def write_at(self, content: bytes, offset: int, *, synced: bool = False) -> None:
        disk.write_at(self._descriptor, content, offset)
        if synced:
            self.sync()

    def allocate(self, offset: int, length: int) -> None:
        disk.allocate(self._descriptor, offset, length)

    def sync(self) -> None:
        disk.sync_content(self._descriptor)

    def truncate(self, length: int) -> None:
        disk.truncate(self._descriptor, length)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        os.close(self._descriptor)


class MemoryFile:
    """Bytes that live as long as the store."""

    def __init__(self) -> None:
        self._content = bytearray()

    def read_at(self, offset: int, length: int) -> bytes:
        return bytes(self._content[offset : offset + length])

    def write_at(self, content: bytes, offset: int, *, synced: bool = False) -> None:
        self._content[offset : offset + len(content)] = content

    def allocate(self, offset: int, length: int) -> None:
        self._content.extend(bytes(max(offset + length - len(self._content), 0)))

    def sync(self) -> None:
        """Nothing outlives the process."""

    def truncate(self, length: int) -> None:
        del self._content[length:]

    def size(self) -> int:
        return len(self._content)

    def close(self) -> None:
        """Nothing to give back."""
