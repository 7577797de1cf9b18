"""Files in a local directory."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pyarrow as pa

from eventlab.storage import operations as disk
from eventlab.storage.api import Buffer, check_name, is_unfinished, read_joined


class LocalStorage:
    """See `Storage`. The directory is made when the first file is written; links in it are not followed.

    Files are read with `pread` and not mapped: a mapped file that another process cuts would kill this one.
    """

    join_gap = 0

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def read(self, name: str) -> memoryview:
        with self._opened(name) as descriptor:
            return _read(descriptor, 0, os.fstat(descriptor).st_size)

    def ranges(self, name: str, wanted: Sequence[tuple[int, int]]) -> Iterator[memoryview]:
        with self._opened(name) as descriptor:
            yield from read_joined(wanted, self.join_gap, partial(_read, descriptor))

    def arrow_file(self, name: str) -> pa.NativeFile:
        with self._opened(name) as descriptor:
            return pa.OSFile(f"/dev/fd/{descriptor}")  # Arrow takes a path, and would follow a link at the file's

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        # Joining strings, as this takes less time than joining paths, and short reads open a file each.
        path = f"{self.directory}/{check_name(name)}"
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def write(self, name: str, buffers: Iterable[Buffer]) -> None:
        self._write(name, buffers, disk.rename)

    def create(self, name: str, buffers: Iterable[Buffer]) -> None:
        self._write(name, buffers, _publish_new)

    def _write(self, name: str, buffers: Iterable[Buffer], publish: Callable[[Path, Path], None]) -> None:
        path = self.directory / check_name(name)
        disk.make_directory(self.directory)
        unfinished = self.directory / f".{secrets.token_hex(16)}.part"
        try:
            write_new(unfinished, buffers)
            publish(unfinished, path)
        except BaseException:
            with suppress(OSError):  # what remains is swept
                disk.remove(unfinished)
            raise

    def list(self, prefix: str = "") -> Mapping[str, int]:
        return {name: size for name, size in self._files() if name.startswith(prefix) and not is_unfinished(name)}

    def _files(self) -> Iterator[tuple[str, int]]:
        try:
            entries = sorted(os.scandir(self.directory), key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        for entry in entries:
            with suppress(FileNotFoundError):  # removed meanwhile
                if entry.is_file(follow_symlinks=False):
                    yield entry.name, entry.stat(follow_symlinks=False).st_size

    def remove(self, name: str) -> None:
        disk.remove(self.directory / check_name(name))

    def sync(self) -> None:
        if self.directory.is_dir():
            disk.sync_directory(self.directory)
            with suppress(PermissionError):  # a parent that cannot be read has had the directory for long
                disk.sync_directory(self.directory.parent)

    def sweep(self) -> Mapping[str, int]:
        removed = {}
        for name, size in self._files():
            if is_unfinished(name):
                with suppress(OSError):  # the next sweep tries again
                    disk.remove(self.directory / name)
                    removed[name] = size
        return removed


def write_new(path: Path, buffers: Iterable[Buffer], *, synced: bool = True) -> None:
    """Write a file that does not exist yet."""
    descriptor = disk.create(path)
    try:
        offset = 0
        for buffer in buffers:
            disk.write_at(descriptor, memoryview(buffer), offset)
            offset += memoryview(buffer).nbytes
        if synced:
            disk.sync(descriptor)
    finally:
        os.close(descriptor)


def _publish_new(unfinished: Path, path: Path) -> None:
    disk.link(unfinished, path)
    with suppress(OSError):  # what remains is swept
        disk.remove(unfinished)


def _read(descriptor: int, start: int, stop: int) -> memoryview:
    content = more = os.pread(descriptor, stop - start, start)
    while more and start + len(content) < stop:  # a read of more than 2 GiB comes in parts
        more = os.pread(descriptor, stop - start - len(content), start + len(content))
        content += more
    return memoryview(content)


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Fill a directory under another name; it gets its own name, durably, once it is complete, and else is removed."""
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    disk.make_directory(partial)
    try:
        yield partial
        disk.sync_directory(partial)
        disk.rename(partial, path)
        disk.sync_directory(path.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
