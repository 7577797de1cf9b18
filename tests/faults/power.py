"""What a power failure leaves: what was synced, and of the rest anything between nothing and all.

SQLite's own files are taken as they are: with ``synchronous=FULL`` its commits are durable when they return. The index
of its WAL is dropped, as it is memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eventlab.store.catalog.opening import CATALOG_NAME

SECTOR = 512
Image = dict[str, bytes | None]
"""Content by path inside the store's directory; None for a directory."""


def taken(directory: Path) -> Image:
    """The files of a directory as they are now, for a process that is killed here."""
    image: Image = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        image[name] = path.read_bytes() if path.is_file() else None
    return image


def put(image: Image, directory: Path) -> None:
    """Write an image out."""
    directory.mkdir(parents=True)
    for name, content in image.items():
        if content is None:
            (directory / name).mkdir(exist_ok=True)
        else:
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_bytes(content)


def is_sqlite(name: str) -> bool:
    return name.startswith(CATALOG_NAME)


@dataclass
class _File:
    """Durable content of a file, and the writes since it was synced."""

    durable: bytes
    pending: list[tuple[int, bytes]] = field(default_factory=list)
    """Offset and content; an offset alone, with empty content, for a change of size to it."""


@dataclass
class Power:
    """Follows the steps of one store and says what a power failure would leave at any moment."""

    directory: Path
    _files: dict[int, _File] = field(default_factory=dict)
    _names: dict[str, int | None] = field(default_factory=dict)
    """Inode by durable name; None for a directory."""

    def __post_init__(self) -> None:
        if self.directory.exists():
            for path in self.directory.rglob("*"):
                name = str(path.relative_to(self.directory))
                if not is_sqlite(name):
                    self._names[name] = self._file(path) if path.is_file() else None

    def _file(self, path: Path) -> int:
        inode = path.stat().st_ino
        self._files[inode] = _File(path.read_bytes())
        return inode

    def done(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        """Learn that a step was done."""
        match name:
            case "create":
                self._files[os.fstat(result).st_ino] = _File(b"")
            case "write_at":
                descriptor, content, offset = arguments
                self._of(descriptor).pending.append((offset, bytes(memoryview(content).cast("B"))))
            case "allocate":
                descriptor, offset, length = arguments
                self._of(descriptor).pending.append((max(offset + length, os.fstat(descriptor).st_size), b""))
            case "truncate":
                descriptor, length = arguments
                self._of(descriptor).pending.append((length, b""))
            case "sync" | "sync_content":
                file = self._of(arguments[0])
                file.durable, file.pending = _written(file.durable, file.pending), []
            case "sync_directory":
                self._synced(arguments[0])

    def _of(self, descriptor: int) -> _File:
        return self._files[os.fstat(descriptor).st_ino]

    def _synced(self, folder: Path) -> None:
        if not folder.is_relative_to(self.directory):
            return
        for name in [name for name in self._names if (self.directory / name).parent == folder]:
            if not (self.directory / name).exists():
                del self._names[name]
        for path in folder.iterdir():
            name = str(path.relative_to(self.directory))
            if path.is_dir():
                self._names[name] = None
            elif not is_sqlite(name) and path.stat().st_ino in self._files:
                self._names[name] = path.stat().st_ino

    def images(self) -> Iterator[Image]:
        """What may be left now: from nothing that was not synced to nearly all of it."""
        now = taken(self.directory)
        kept = {name: content for name, content in now.items() if is_sqlite(name) and not name.endswith("-shm")}
        inodes = {
            name: (self.directory / name).stat().st_ino if content is not None else None
            for name, content in now.items()
            if not is_sqlite(name)
        }
        contents: list[Callable[[_File], bytes]] = [lambda file: file.durable]
        if any(file.pending for file in self._files.values()):
            contents += [
                lambda file: _written(file.durable, file.pending),
                lambda file: _torn(file, lambda sector, count: sector < (count + 1) // 2),
                lambda file: _torn(file, lambda sector, count: sector >= count // 2),
                lambda file: _torn(file, lambda sector, count: sector % 2 == 0),
                lambda file: _written(file.durable, [(at, b"") for at, part in file.pending if not part]),
                lambda file: _written(file.durable, file.pending[-1:]),
            ]
        for names in (self._names, inodes):
            for content in contents:
                image = dict(kept)
                for name, inode in names.items():
                    if inode is None:
                        image[name] = None
                    elif inode in self._files:
                        image[name] = content(self._files[inode])
                    else:
                        image[name] = now[name]
                yield image


def _written(durable: bytes, writes: list[tuple[int, bytes]]) -> bytes:
    content = bytearray(durable)
    for offset, part in writes:
        if not part:  # a change of size
            content = content[:offset].ljust(offset, b"\0")
            continue
        content = content.ljust(offset, b"\0")
        content[offset : offset + len(part)] = part
    return bytes(content)


def _torn(file: _File, survives: Callable[[int, int], bool]) -> bytes:
    """Of every write only some sectors."""
    pieces: list[tuple[int, bytes]] = []
    for offset, part in file.pending:
        if not part:
            pieces.append((offset, part))
            continue
        first, last = offset // SECTOR, (offset + len(part) - 1) // SECTOR
        for sector in range(first, last + 1):
            if survives(sector - first, last - first + 1):
                low, high = max(sector * SECTOR, offset), min((sector + 1) * SECTOR, offset + len(part))
                pieces.append((low, part[low - offset : high - offset]))
    return _written(file.durable, pieces)


def torn_wal(before: bytes, after: bytes, pieces: int = 6) -> Iterator[bytes]:
    """A write-ahead log in the middle of a commit: the first part of what changed, cut in several places."""
    first = next((at for at, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before))
    for cut in range(1, pieces + 1):
        at = first + (len(after) - first) * cut // (pieces + 1)
        yield after[:at] + before[at:]
