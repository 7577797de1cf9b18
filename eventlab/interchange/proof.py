"""The proof of a file: its SHA-256, which the file itself carries near its end.

The hash is computed with zeros in place of its own digits, so that it covers every byte of the file.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator

from eventlab.errors import FeedError
from eventlab.storage.api import Storage
from eventlab.storage.file import size_of

_MARK = b"eventlab-sha256="
_DIGITS = 64
_ZEROS = b"0" * _DIGITS
_PROOF = re.compile(_MARK + rb"([0-9a-f]{64})")
_BLOCK = 1 << 20
_END = 1 << 22
"""The proof stands within so many bytes of a file's end."""


class Sealed:
    """The content of a file, with its proof in place of `placeholder`.

    Attributes
    ----------
    placeholder : str
        What the content must have near its end, where the proof is to stand.
    sha256 : str
        The digits of the proof; known once all buffers were taken.
    size : int
        Bytes taken so far.
    """

    def __init__(self) -> None:
        self._token = secrets.token_hex(_DIGITS // 2).encode()  # occurs nowhere else
        self.placeholder = (_MARK + self._token).decode()
        self.sha256, self.size = "", 0

    def of(self, buffers: Iterable[bytes]) -> Iterator[bytes]:
        """The buffers of a file, sealed."""
        hashed, rest, found = hashlib.sha256(), b"", False
        for buffer in buffers:
            rest += buffer
            self.size += len(buffer)
            if not found:
                at = rest.find(self._token)
                found = at >= 0
                stop = at if found else max(len(rest) - _DIGITS + 1, 0)  # digits may go on in the next buffer
                hashed.update(rest[:stop])
                yield rest[:stop]
                rest = rest[stop:]
        if not found:
            raise FeedError("a file without a place for its proof")
        hashed.update(rest.replace(self._token, _ZEROS))
        self.sha256 = hashed.hexdigest()
        yield rest.replace(self._token, self.sha256.encode())


def check(storage: Storage, name: str) -> str | None:
    """Return the digits of a file's proof if the file agrees with it, and None for a file without a proof.

    Raises
    ------
    FeedError
        The bytes are not those that were exported.
    """
    size = size_of(storage, name)
    (end,) = storage.ranges(name, [(max(size - _END, 0), size)])
    found = _PROOF.findall(end)
    if not found:
        return None
    digest = _sha256(storage, name, size, found[-1])
    if digest.encode() != found[-1]:
        raise FeedError(
            f"{name}: the file is not what was exported",
            got=f"SHA-256 {digest}",
            expected=found[-1].decode(),
            hint="It was damaged or changed since; export it again.",
        )
    return digest


def sha256_of(storage: Storage, name: str) -> str:
    """The digest of a file's bytes as they are."""
    return _sha256(storage, name, size_of(storage, name), None)


def _sha256(storage: Storage, name: str, size: int, digits: bytes | None) -> str:
    """SHA-256 of a file, with zeros in place of some digits."""
    hashed, rest = hashlib.sha256(), b""
    for block in storage.ranges(name, [(at, min(at + _BLOCK, size)) for at in range(0, size, _BLOCK)]):
        rest += block
        if digits is not None:
            rest = rest.replace(digits, _ZEROS)
        stop = max(len(rest) - _DIGITS + 1, 0)  # digits may go on in the next block
        hashed.update(rest[:stop])
        rest = rest[stop:]
    hashed.update(rest)
    return hashed.hexdigest()
