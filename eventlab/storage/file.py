"""A file of a storage as a Python file, for libraries that read from one."""

from __future__ import annotations

import io
import os
from typing import BinaryIO, cast

from eventlab.storage.api import Storage

_BUFFERED = 1 << 20


def opened(storage: Storage, name: str) -> BinaryIO:
    """Open a file for reading. Raises FileNotFoundError."""
    return cast("BinaryIO", io.BufferedReader(_RangeFile(storage, name), _BUFFERED))


class _RangeFile(io.RawIOBase):
    def __init__(self, storage: Storage, name: str) -> None:
        self._storage, self._name = storage, name
        self._position, self._size = 0, size_of(storage, name)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        (content,) = self._storage.ranges(self._name, [(self._position, self._position + len(buffer))])
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


def size_of(storage: Storage, name: str) -> int:
    """Bytes of a file. Raises FileNotFoundError."""
    size = storage.list(name).get(name)
    if size is None:
        raise FileNotFoundError(name)
    return size
