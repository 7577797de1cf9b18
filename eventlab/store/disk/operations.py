"""Every file operation by which a store changes what is on disk, one function each, to be failed one by one."""

from __future__ import annotations

import os
from pathlib import Path


def create(path: Path) -> int:
    """A new file opened for reading and writing; FileExistsError where there is one."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)


def write_at(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    """Write all bytes at an offset."""
    _write(descriptor, memoryview(content).cast("B"), offset)


def allocate(descriptor: int, offset: int, length: int) -> None:
    """Fill a file up with zeros, so that later writes neither fail for want of space nor change the file's size.

    Space that is only reserved makes each sync twice as slow: the file system must first note what was written there.
    """
    os.posix_fallocate(descriptor, offset, length)
    _write(descriptor, memoryview(bytes(length)), offset)


def _write(descriptor: int, rest: memoryview, offset: int) -> None:
    while rest:
        count = os.pwrite(descriptor, rest, offset)
        offset, rest = offset + count, rest[count:]


def truncate(descriptor: int, length: int) -> None:
    """Cut a file."""
    os.ftruncate(descriptor, length)


def sync(descriptor: int) -> None:
    """Make content and size durable."""
    os.fsync(descriptor)


def sync_content(descriptor: int) -> None:
    """Make content durable, and of the rest what reading it back needs."""
    os.fdatasync(descriptor)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Make a directory; no error where it is there."""
    path.mkdir(exist_ok=True)


def remove(path: Path) -> None:
    """Remove a file; no error where there is none."""
    path.unlink(missing_ok=True)


def rename(old: Path, new: Path) -> None:
    """Give a file or directory another name, atomically, in place of what had it."""
    old.replace(new)
