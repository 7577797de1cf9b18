"""Compiled kernels, kept on disk between processes as the object files that LLVM made of them.

Loading one takes a few milliseconds. It is named by all that it was made from: the reducer's code, the types of the
arguments, this room's own source, the versions of compiler and interpreter, and the processor. A file that is not whole
is made again, and what somebody else could have written is not loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import stat
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from eventlab.fold.native.call import Code, Native, Types, host, load

FOLDER = "EVENTLAB_KERNELS"
"""The environment variable that names another folder than the user's cache."""

_MAGIC = b"ELKERN01"
_NAME = re.compile(r"[0-9a-f]{64}")
_UNFINISHED, _UNFINISHED_DAYS = ".kernel-", 1.0
"""How the name of a file begins that is being written, and after how many days nobody is writing it any more."""


def key_of(parts: Iterable[str], types: Types) -> str:
    """The name of a kernel made from these."""
    sha = hashlib.sha256()
    for part in (*_environment(), *parts, *map(_described, types)):
        sha.update(part.encode("utf-8", "backslashreplace") + b"\0")
    return sha.hexdigest()


def _described(kind: str | np.dtype[Any]) -> str:
    return kind if isinstance(kind, str) else f"{kind.descr}{kind.itemsize}"


def _source() -> str:
    room = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in room)).hexdigest()


_SOURCE = _source()
"""Of this room, as it is loaded: not as an upgrade leaves it while the process runs."""


@cache
def _environment() -> tuple[str, ...]:
    versions = [importlib.metadata.version(name) for name in ("numba", "llvmlite")]
    settings = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("NUMBA_")]
    return (_SOURCE, *versions, *settings, sys.implementation.cache_tag or "", *host().values())


def folder() -> Path:
    """Where kernels are kept."""
    named = os.environ.get(FOLDER)
    return Path(named) if named else platformdirs.user_cache_path("eventlab") / "kernels"


def _own(path: Path) -> bool:
    """Whether nobody else can have put there what is there: it is machine code, to be run as it is."""
    found = path.stat()
    return found.st_uid in (os.getuid(), 0) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _digest(key: str, content: bytes) -> bytes:
    """Of name and content: a whole kernel under another's name is none."""
    return hashlib.sha256(key.encode() + content).digest()


def usable(place: Path) -> bool:
    """Whether kernels can be kept in a folder, and would be loaded from it. Makes it where it is missing."""
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _own(place) and os.access(place, os.W_OK | os.X_OK)
    except OSError:
        return False


def kept(key: str) -> Native | None:
    """A kernel that this or another process kept; None where there is none that can be used."""
    path = folder() / key
    try:
        if not (_own(path.parent) and _own(path)):
            return None
        content = path.read_bytes()
        head = len(_MAGIC)
        digest, size = content[head : head + 32], int.from_bytes(content[head + 32 : head + 36], "little")
        rest = content[head + 36 :]
        if content[:head] != _MAGIC or _digest(key, rest) != digest:
            return None
        said = json.loads(rest[:size])
        native = load(Code(said["entry"], rest[size:], said["needs"]))
    except (OSError, ValueError, LookupError, RuntimeError):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # `sweep` goes by it
    return native


def files() -> dict[str, int]:
    """Names and sizes (bytes) of the kernels that are kept."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError), os.scandir(folder()) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    found[entry.name] = entry.stat().st_size
    return found


def sweep(unused_days: float = 90.0) -> int:
    """Remove kernels that no process used for so long, and what killed processes left; gives how many files.

    Other processes may read and write the folder meanwhile: one that misses a kernel compiles it again.
    """
    now, removed = time.time(), 0
    with contextlib.suppress(OSError), os.scandir(folder()) as entries:
        for entry in entries:
            unfinished = entry.name.startswith(_UNFINISHED)
            if not (unfinished or _NAME.fullmatch(entry.name)):
                continue  # somebody else's
            limit = _UNFINISHED_DAYS if unfinished else unused_days
            with contextlib.suppress(OSError):
                if now - entry.stat().st_mtime > limit * 86_400:
                    Path(entry.path).unlink()
                    removed += 1
    return removed


def keep(key: str, code: Code) -> None:
    """Keep a kernel for later processes. A folder that cannot be written is nobody's harm."""
    said = json.dumps({"entry": code.entry, "needs": list(code.needs)}).encode()
    rest = said + code.content
    content = b"".join([_MAGIC, _digest(key, rest), len(said).to_bytes(4, "little"), rest])
    place = folder()
    with contextlib.suppress(OSError):
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, beside = tempfile.mkstemp(dir=place, prefix=_UNFINISHED)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(beside).replace(place / key)  # whole or not at all, whoever else writes the same
        except BaseException:
            with contextlib.suppress(OSError):
                Path(beside).unlink()
            raise
