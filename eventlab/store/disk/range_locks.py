"""Locks on byte ranges of a file. They belong to an open descriptor: closing another one does not release them.

The system releases them when the last copy of the descriptor is closed, also when a process is killed.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys

# Darwin's numbers are those of its <sys/fcntl.h>; Python knows the names on Linux only.
_SET, _SET_WAIT, _GET = (
    getattr(fcntl, f"F_OFD_{name}", darwin) for name, darwin in (("SETLK", 90), ("SETLKW", 91), ("GETLK", 92))
)
_STRUCT = struct.Struct("qqihh" if sys.platform == "darwin" else "hhqqi4x")
_KIND = 3 if sys.platform == "darwin" else 0


def _packed(kind: int, first: int, length: int) -> bytes:
    if sys.platform == "darwin":
        return _STRUCT.pack(first, length, 0, kind, os.SEEK_SET)
    return _STRUCT.pack(kind, os.SEEK_SET, first, length, 0)


def try_lock(descriptor: int, first: int, length: int = 1, *, shared: bool = False) -> bool:
    """Lock bytes; False if others hold any of them. Without `shared` the descriptor must be writable."""
    try:
        fcntl.fcntl(descriptor, _SET, _packed(fcntl.F_RDLCK if shared else fcntl.F_WRLCK, first, length))
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, depending on the system
        return False
    return True


def wait_exclusive(descriptor: int, first: int, length: int = 1) -> None:
    """Lock bytes exclusively, and wait for others without limit."""
    fcntl.fcntl(descriptor, _SET_WAIT, _packed(fcntl.F_WRLCK, first, length))


def unlock(descriptor: int, first: int, length: int = 1) -> None:
    """Release bytes."""
    fcntl.fcntl(descriptor, _SET, _packed(fcntl.F_UNLCK, first, length))


def is_locked(descriptor: int, first: int, length: int = 1) -> bool:
    """Whether another descriptor holds any of the bytes, exclusively or shared."""
    found: int = _STRUCT.unpack(fcntl.fcntl(descriptor, _GET, _packed(fcntl.F_WRLCK, first, length)))[_KIND]
    return found != fcntl.F_UNLCK
