"""Where segment files lie: a directory, or memory for ``:memory:`` stores. Files are written once and never changed."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from eventlab.store.disk import operations as disk

_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}\.(parquet|pco)")


def new_name(first_position: int, suffix: str = ".parquet") -> str:
    """A file name nobody used before, from numbers only."""
    return f"{first_position:016x}-{secrets.token_hex(8)}{suffix}"


class Vault(Protocol):
    """Files by name."""

    def write(self, name: str, content: pa.Buffer) -> None:
        """Keep a new file durably, but for its name: that needs `sync`."""

    def sync(self) -> None:
        """Make the names of all files written durable."""

    def source(self, name: str) -> pa.NativeFile:
        """A file opened for reading. Raises FileNotFoundError."""

    def remove(self, name: str) -> None:
        """Forget a file; no error where there is none."""

    def names(self) -> set[str]:
        """All files that look like segment files."""


class DirectoryVault:
    """Files in the folder ``segments`` of a store."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, name: str, content: pa.Buffer) -> None:
        disk.make_directory(self.directory)
        descriptor = disk.create(self.directory / name)
        try:
            disk.write_at(descriptor, memoryview(content), 0)
            disk.sync(descriptor)
        finally:
            os.close(descriptor)

    def sync(self) -> None:
        for folder in (self.directory, self.directory.parent):
            disk.sync_directory(folder)

    def source(self, name: str) -> pa.NativeFile:
        return pa.OSFile(str(self.directory / name), "rb")

    def remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            disk.remove(self.directory / name)

    def names(self) -> set[str]:
        if not self.directory.is_dir():
            return set()
        return {entry.name for entry in os.scandir(self.directory) if _NAME.fullmatch(entry.name)}


class MemoryVault:
    """Files in a dictionary."""

    def __init__(self) -> None:
        self._files: dict[str, pa.Buffer] = {}

    def write(self, name: str, content: pa.Buffer) -> None:
        self._files[name] = content

    def sync(self) -> None:
        """Nothing outlives the process."""

    def source(self, name: str) -> pa.NativeFile:
        if name not in self._files:
            raise FileNotFoundError(name)
        return pa.BufferReader(self._files[name])

    def remove(self, name: str) -> None:
        self._files.pop(name, None)

    def names(self) -> set[str]:
        return set(self._files)
