"""Every file operation that changes the disk, one function each: tests make each of them fail in turn."""

from __future__ import annotations

import os
from pathlib import Path


def create(path: Path) -> int:
    """Open a new file for reading and writing. Raises FileExistsError if the name is taken, also by a link."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)


def write_at(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    """Write all bytes at an offset."""
    _write(descriptor, memoryview(content).cast("B"), offset)


def allocate(descriptor: int, offset: int, length: int) -> None:
    """Fill a file with zeros, so that later writes neither run out of space nor change the file's size.

    Space that is only reserved makes each sync twice as slow: the file system must first mark it as written.
    """
    os.posix_fallocate(descriptor, offset, length)
    _write(descriptor, memoryview(bytes(length)), offset)


def _write(descriptor: int, rest: memoryview, offset: int) -> None:
    while rest:
        count = os.pwrite(descriptor, rest, offset)
        offset, rest = offset + count, rest[count:]


def truncate(descriptor: int, length: int) -> None:
    """Cut a file to a length."""
    os.ftruncate(descriptor, length)


def sync(descriptor: int) -> None:
    """Make content and size durable."""
    os.fsync(descriptor)


def sync_content(descriptor: int) -> None:
    """Make content durable, with only the metadata that is needed to read it back."""
    os.fdatasync(descriptor)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Make a directory; an existing one is no error."""
    path.mkdir(exist_ok=True)


def remove(path: Path) -> None:
    """Remove a file; a missing one is no error."""
    path.unlink(missing_ok=True)


def rename(old: Path, new: Path) -> None:
    """Rename a file or directory atomically; it replaces a file of the new name."""
    old.replace(new)


def link(old: Path, new: Path) -> None:
    """Give a file a second name. Raises FileExistsError if the name is taken."""
    os.link(old, new)
