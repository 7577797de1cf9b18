"""A file that carries its own SHA-256, computed with zeros in the digits' place: every byte of it is covered."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from eventlab.errors import FeedError

_MARK = b"eventlab-sha256="
_DIGITS = 64
_ZEROS = b"0" * _DIGITS
_PROOF = re.compile(_MARK + rb"([0-9a-f]{64})")
_BLOCK = 1 << 20
_TAIL = 1 << 22


def placeholder() -> str:
    """The text to write where the proof shall stand; its digits occur nowhere else."""
    return _MARK.decode() + secrets.token_hex(_DIGITS // 2)


def seal(file: BinaryIO, written: str) -> str:
    """Put the proof in the place of `written`, a placeholder, wherever that stands in the file; returns the digits."""
    token = written.removeprefix(_MARK.decode()).encode()
    digest, places = _hashed(file, token)
    if not places:
        raise FeedError("a file without a place for its proof")
    for place in places:
        file.seek(place)
        file.write(digest.encode())
    return digest


def check(path: Path) -> str | None:
    """The digits of a file's proof, once the file's bytes agree with it; None for a file without one.

    Raises
    ------
    FeedError
        Bytes that are not what was written.
    """
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _TAIL, 0))
        found = _PROOF.findall(file.read())  # every form keeps it near the end
        if not found:
            return None
        digest, _ = _hashed(file, found[-1])
    if digest.encode() != found[-1]:
        raise FeedError(
            f"{path.name}: the file is not what was exported",
            got=f"SHA-256 {digest}",
            expected=found[-1].decode(),
            hint="It was damaged or changed since; export it again.",
        )
    return digest


def sha256_of(path: Path) -> str:
    """Digest of a file's bytes as they are."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hashed(file: BinaryIO, digits: bytes) -> tuple[str, list[int]]:
    """SHA-256 of a file with zeros for some digits, and where these stand."""
    hashed, places, done, held = hashlib.sha256(), list[int](), 0, b""
    for block in _blocks(file):
        held += block
        at = held.find(digits)
        while at >= 0:
            places.append(done + at)
            at = held.find(digits, at + _DIGITS)
        held = held.replace(digits, _ZEROS)
        whole = len(held) - _DIGITS + 1  # digits may go on in the next block
        if whole > 0:
            hashed.update(held[:whole])
            done, held = done + whole, held[whole:]
    hashed.update(held)
    return hashed.hexdigest(), places


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while block := file.read(_BLOCK):
        yield block
