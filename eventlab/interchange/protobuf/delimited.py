"""Length-delimited framing: each message follows its length as a varint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from eventlab.errors import InvalidEvent

MAX_MESSAGE = 1 << 26
"""Bytes. Longer events are neither written nor read, so that a wrong length cannot use up all memory."""

_LENGTH_BYTES = 5


def delimited(data: bytes, at: str) -> bytes:
    """Put a message after its length. Raises InvalidEvent with `at` if it is too long."""
    if len(data) > MAX_MESSAGE:
        raise InvalidEvent(f"{at}: too large an event", got=f"{len(data)} bytes", expected=f"at most {MAX_MESSAGE}")
    out, number = bytearray(), len(data)
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out) + data


def messages(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """The messages of a stream, each with a description of its place. Raises InvalidEvent if the stream is cut off."""
    number = offset = 0
    while True:
        at = f"message {number} at byte {offset}"
        size, length_bytes = _length(file, at)
        if not length_bytes:
            return
        data = _read(file, size)
        if len(data) < size:
            raise InvalidEvent(f"{at}: the stream ends inside it", got=f"{len(data)} bytes", expected=f"{size} bytes")
        yield at, data
        number, offset = number + 1, offset + length_bytes + size


def _length(file: BinaryIO, at: str) -> tuple[int, int]:
    """A message's length and the number of bytes that encode it; 0 at the end of the stream."""
    size = 0
    for place in range(_LENGTH_BYTES):
        byte = _read(file, 1)
        if not byte:
            if place:
                raise InvalidEvent(f"{at}: the stream ends inside its length")
            return 0, 0
        size |= (byte[0] & 0x7F) << (7 * place)
        if byte[0] < 0x80:
            if size > MAX_MESSAGE:
                break
            return size, place + 1
    raise InvalidEvent(
        f"{at}: not a length",
        got=size,
        expected=f"at most {MAX_MESSAGE}",
        hint="A stream is a run of DomainEvents, each after its length as a varint; is this one?",
    )


def _read(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if not isinstance(data, bytes):
        raise InvalidEvent("not a binary stream", got=type(data).__name__, hint='Open the file with mode "rb".')
    while len(data) < size and (more := file.read(size - len(data))):  # pipes return less
        data += more
    return data
