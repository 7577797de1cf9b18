"""Source files, plain, gzip or zip, as blocks of whole lines in bounded memory."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from eventlab.errors import FeedError

BLOCK_BYTES = 1 << 24
"""Decompressed bytes per read. Never change it: chunks depend on it, and an ingest resumes by chunk."""

LONGEST_LINE = 1 << 26

_GZIP, _ZIP = b"\x1f\x8b", (b"PK\x03\x04", b"PK\x05\x06")
_FOREIGN = {
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"PAR1": "Parquet",
    b"\xef\xbb\xbf": "UTF-8 with a byte order mark",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Whole lines. `done` is the number of raw file bytes read so far."""

    data: bytes
    done: int


class TextFile:
    """A text file that can be read several times.

    Raises
    ------
    FeedError
        No such file, not a regular file, or not readable.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            self.path = Path(path)
            if self.path.is_dir():
                raise FeedError(f"{self.path} is a directory", expected="a file", hint="Name the file inside it.")
            self.size = self.path.stat().st_size
            if not self.path.is_file():
                raise FeedError(f"{self.path} is not a regular file", expected="a file")
        except (OSError, TypeError, ValueError) as error:
            if isinstance(error, FeedError):
                raise
            raise FeedError(f"{path!s} cannot be read", got=str(error), expected="a file") from error
        self._digest: str | None = None

    @property
    def name(self) -> str:
        """The file's name in messages."""
        return str(self.path)

    def digest(self) -> str:
        """SHA-256 of the raw bytes, in hex; computed once."""
        if self._digest is None:
            try:
                with self.path.open("rb") as raw:
                    self._digest = hashlib.file_digest(raw, "sha256").hexdigest()
            except OSError as error:
                raise FeedError(f"{self.name} cannot be read", got=str(error)) from error
        return self._digest

    def blocks(self) -> Iterator[TextBlock]:
        """Blocks of whole lines in valid UTF-8, identical each time.

        Raises
        ------
        FeedError
            An empty or truncated file, an unsupported format, a zip without exactly one member, or invalid UTF-8.
        """
        with contextlib.ExitStack() as stack:
            try:
                raw = stack.enter_context(self.path.open("rb"))
                stream = self._decompressed(raw, stack)
                yield from self._lines(raw, stream)
            except (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile) as error:
                raise FeedError(
                    f"{self.name} is truncated or damaged",
                    got=str(error) or type(error).__name__,
                    expected="a whole compressed file",
                    hint="Download it again and compare its checksum.",
                ) from error
            except OSError as error:
                raise FeedError(f"{self.name} cannot be read", got=str(error)) from error

    def _decompressed(self, raw: IO[bytes], stack: contextlib.ExitStack) -> IO[bytes]:
        head = raw.read(8)
        raw.seek(0)
        if head.startswith(_GZIP):
            return cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=raw)))
        if head.startswith(_ZIP):
            return self._only_member(stack.enter_context(zipfile.ZipFile(raw)), stack)
        return raw

    def _only_member(self, archive: zipfile.ZipFile, stack: contextlib.ExitStack) -> IO[bytes]:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) != 1:
            raise FeedError(
                f"{self.name}: the zip holds {len(members)} files",
                got=", ".join(member.filename for member in members[:5]) or "nothing",
                expected="one file",
                hint="Extract it and pass one of its files.",
            )
        try:
            return stack.enter_context(archive.open(members[0]))
        except (RuntimeError, NotImplementedError) as error:  # encrypted, or an unsupported compression
            raise FeedError(f"{self.name}: the zip cannot be unpacked", got=str(error)) from error

    def _lines(self, raw: IO[bytes], stream: IO[bytes]) -> Iterator[TextBlock]:
        rest, start = b"", 0
        while True:
            fresh = stream.read(BLOCK_BYTES)  # less only at the end, for plain files, gzip and zip alike
            if start == 0:
                self._check_head(fresh)
            at_end = len(fresh) < BLOCK_BYTES
            cut = len(fresh) if at_end else fresh.rfind(b"\n") + 1
            if cut or at_end:
                data = b"".join((rest, memoryview(fresh)[:cut]))
                rest = fresh[cut:]
                self._check_text(data, start)
                if data:
                    yield TextBlock(data, self.size if at_end else raw.tell())
                start += len(data)
            elif len(rest := rest + fresh) > LONGEST_LINE:
                raise FeedError(f"{self.name}: a line longer than {LONGEST_LINE} bytes", expected="lines of text")
            if at_end:
                return

    def _check_head(self, data: bytes) -> None:
        if not data:
            raise FeedError(f"{self.name} is empty", expected="at least one row", hint="Download it again.")
        for magic, kind in _FOREIGN.items():
            if data.startswith(magic):
                raise FeedError(
                    f"{self.name} is {kind}",
                    expected="UTF-8 text without a byte order mark, plain or in gzip or zip",
                    hint="Decompress or convert it first.",
                )

    def _check_text(self, data: bytes, start: int) -> None:
        if data.isascii():
            return
        try:
            data.decode()
        except UnicodeDecodeError as error:
            first = data.rfind(b"\n", 0, error.start) + 1
            end = data.find(b"\n", error.start)
            text = data[first : end if end >= 0 else None].decode("utf-8", "backslashreplace")
            line = self._lines_before(start) + data.count(b"\n", 0, error.start) + 1
            raise FeedError(
                f"{self.name}, line {line}: not UTF-8 text", got=text, expected="UTF-8 text",
                hint="The file may be truncated: download it again, or convert it.",
            ) from error  # fmt: skip

    def _lines_before(self, start: int) -> int:
        """Number of lines before an offset. Reads the file again, since counting on every pass would cost 10%."""
        count = seen = 0
        blocks = self.blocks()
        while seen < start:  # the next block is the invalid one
            block = next(blocks)
            count += block.data.count(b"\n")
            seen += len(block.data)
        return count
