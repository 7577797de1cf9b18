"""Copying a store while others read and write it: the catalog as of one moment, its journal, its segment files."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from eventlab.errors import NotAStore, StoreError, StoreLocked
from eventlab.store.catalog.connection import as_store_error
from eventlab.store.catalog.database import Catalog
from eventlab.store.catalog.log_index import LogIndex
from eventlab.store.catalog.opening import CATALOG_NAME, SEGMENTS_NAME
from eventlab.store.disk import operations as disk
from eventlab.store.journal.files import JOURNALS_NAME
from eventlab.store.segments.files import Vault

_PIECE = 1 << 20
_TRIES = 100


class Target:
    """A directory in the making: beside its place under another name, until it is complete."""

    def __init__(self, path: Path) -> None:
        """Raises NotAStore where there is something already, ReadOnlyStore or StoreFull where it cannot be made."""
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        if path.exists() or path.is_symlink():
            raise NotAStore(f"{path}: there is something already", expected="a path that does not exist yet")
        self._path = path
        self.partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for folder in (self.partial, self.partial / SEGMENTS_NAME, self.partial / JOURNALS_NAME):
                disk.make_directory(folder)
        except OSError as error:
            raise as_store_error(error, str(path)) from error

    def discard(self) -> None:
        """Leave nothing of it."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def finish(self) -> None:
        """Give it its name, durably."""
        if self._path.exists():
            raise NotAStore(f"{self._path}: was made by somebody else meanwhile")
        for folder in (self.partial / SEGMENTS_NAME, self.partial / JOURNALS_NAME, self.partial):
            disk.sync_directory(folder)
        disk.rename(self.partial, self._path)
        disk.sync_directory(self._path.parent)


def copy_moment(catalog: Catalog, index: LogIndex, partial: Path) -> list[str]:
    """Copy catalog and journal as of one moment; gives the names of the segment files that belong to it.

    Writers are not kept waiting: where one changed the catalog meanwhile, the copy begins anew.

    Raises
    ------
    StoreLocked
        Others changed the catalog during each of many attempts.
    """
    copy = partial / CATALOG_NAME
    for _ in range(_TRIES):
        index.refresh()
        before = catalog.data_version()
        _copy_catalog(catalog, copy)
        index.refresh()  # the journal may have grown; a record that needs a newer catalog comes with one
        content = None if index.journal is None else index.journal.content()
        if catalog.data_version() == before:
            break
        copy.unlink()
    else:
        raise StoreLocked(f"{catalog.where}: was changed during every attempt to copy it", hint="Try again.")
    if content is not None:
        _write(partial / JOURNALS_NAME / index.journal_name, [content])
    return [file.name for segment in index.manifest().segments for file in segment.files.values()]


def _copy_catalog(catalog: Catalog, copy: Path) -> None:
    catalog.copy_to(copy)
    descriptor = os.open(copy, os.O_RDWR | os.O_CLOEXEC)
    try:
        disk.sync(descriptor)
    finally:
        os.close(descriptor)


def copy_segments(vault: Vault, names: Iterable[str], partial: Path) -> None:
    """Copy segment files, while a lease protects them."""
    for name in names:
        with vault.source(name) as source:
            pieces = iter(lambda source=source: source.read(_PIECE), b"")  # type: ignore[misc]
            _write(partial / SEGMENTS_NAME / name, pieces)


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    try:
        descriptor = disk.create(path)
        try:
            offset = 0
            for piece in pieces:
                disk.write_at(descriptor, piece, offset)
                offset += len(piece)
            disk.sync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise as_store_error(error, str(path)) from error
