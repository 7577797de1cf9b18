"""The names of segment files, and which files of a storage are segment files."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress

from eventlab.storage.api import Storage

_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}\.(parquet|pco)")


def new_name(first_position: int, suffix: str = ".parquet") -> str:
    """A file name that was never used before, from numbers only."""
    return f"{first_position:016x}-{secrets.token_hex(8)}{suffix}"


def segment_files(storage: Storage) -> Mapping[str, int]:
    """The bytes of every file that is named like a segment file."""
    return {name: size for name, size in storage.list().items() if _NAME.fullmatch(name)}


def discard(storage: Storage, names: Iterable[str]) -> None:
    """Remove files that the catalog does not name. One that cannot be removed is swept later."""
    for name in names:
        with suppress(OSError):
            storage.remove(name)
