"""Compiled kernels on disk, as the object files that LLVM made: later processes load one in a few milliseconds.

A file's name is a hash of everything that it was made from: the reducer's code, the types of the arguments, the source
of `eventlab.fold`, the versions of compiler and interpreter, and the processor. A damaged file is compiled again, and
one that another user could have written is not loaded.
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
"""Prefix of files that are being written, and the age at which their writer is taken for dead."""


def key_of(parts: Iterable[str], types: Types) -> str:
    """The name of a kernel made from these."""
    sha = hashlib.sha256()
    for part in (*_environment(), *parts, *map(_described, types)):
        sha.update(part.encode("utf-8", "backslashreplace") + b"\0")
    return sha.hexdigest()


def _described(kind: str | np.dtype[Any]) -> str:
    return kind if isinstance(kind, str) else f"{kind.descr}{kind.itemsize}"


def _files_of_the_room() -> list[Path]:
    return sorted(Path(__file__).parents[1].rglob("*.py"))


_SOURCE = hashlib.sha256(b"\0".join(path.read_bytes() for path in _files_of_the_room())).hexdigest()
"""Hashed on import, since an upgrade may replace the files while the process runs."""


@cache
def _environment() -> tuple[str, ...]:
    versions = [importlib.metadata.version(name) for name in ("numba", "llvmlite")]
    settings = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("NUMBA_")]
    return (_SOURCE, *versions, *settings, sys.implementation.cache_tag or "", *host().values())


def folder() -> Path:
    """The folder of the kernels."""
    named = os.environ.get(FOLDER)
    return Path(named) if named else platformdirs.user_cache_path("eventlab") / "kernels"


def _own(path: Path) -> bool:
    """Whether only this user or root can have written there: a kernel is machine code, and runs as it is."""
    found = path.stat()
    return found.st_uid in (os.getuid(), 0) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _digest(key: str, content: bytes) -> bytes:
    # The name is hashed, too: an undamaged kernel under another kernel's name is not valid.
    return hashlib.sha256(key.encode() + content).digest()


def usable(place: Path) -> bool:
    """Whether kernels can be written to a folder, and would be loaded from it. A missing folder is made."""
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _own(place) and os.access(place, os.W_OK | os.X_OK)
    except OSError:
        return False


def find(key: str) -> Native | None:
    """A kernel that this or another process kept, or None where the folder has none that is fit for use."""
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
        header = json.loads(rest[:size])
        native = load(Code(header["entry"], rest[size:], header["needs"]))
    except (OSError, ValueError, LookupError, RuntimeError):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # `sweep` goes by it
    return native


def files() -> dict[str, int]:
    """Names of the kernels, and their sizes in bytes."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError), os.scandir(folder()) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    found[entry.name] = entry.stat().st_size
    return found


def sweep(unused_days: float = 90.0) -> int:
    """Remove kernels that no process used for this long, and what killed processes left. Returns the number of files.

    Other processes may read and write the folder at the same time: one that misses a kernel compiles it again.
    """
    now, removed = time.time(), 0
    with contextlib.suppress(OSError), os.scandir(folder()) as entries:
        for entry in entries:
            unfinished = entry.name.startswith(_UNFINISHED)
            if not (unfinished or _NAME.fullmatch(entry.name)):
                continue  # not a file of ours
            limit = _UNFINISHED_DAYS if unfinished else unused_days
            with contextlib.suppress(OSError):
                if now - entry.stat().st_mtime > limit * 86_400:
                    Path(entry.path).unlink()
                    removed += 1
    return removed


def keep(key: str, code: Code) -> None:
    """Keep a kernel for later processes. Where the folder cannot be written, nothing happens."""
    header = json.dumps({"entry": code.entry, "needs": list(code.needs)}).encode()
    rest = header + code.content
    content = b"".join([_MAGIC, _digest(key, rest), len(header).to_bytes(4, "little"), rest])
    place = folder()
    with contextlib.suppress(OSError):
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, unfinished = tempfile.mkstemp(dir=place, prefix=_UNFINISHED)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(unfinished).replace(place / key)  # atomic, also where other processes write the same kernel
        except BaseException:
            with contextlib.suppress(OSError):
                Path(unfinished).unlink()
            raise
