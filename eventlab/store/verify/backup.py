"""Copies of a store that others read and write: the catalog as of one moment, its journal, its segment files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from eventlab.errors import NotAStore, StoreLocked
from eventlab.storage import operations as disk
from eventlab.storage.api import Storage
from eventlab.storage.local import LocalStorage, new_directory
from eventlab.store.catalog.connection import translating
from eventlab.store.catalog.database import Catalog
from eventlab.store.catalog.log_index import LogIndex
from eventlab.store.catalog.opening import CATALOG_NAME, SEGMENTS_NAME
from eventlab.store.journal.files import JOURNALS_NAME

_TRIES = 100


@contextmanager
def new_copy(path: Path) -> Iterator[Path]:
    """Fill a directory for a copy; it gets the name `path` once it is complete.

    Raises
    ------
    NotAStore
        Something else has this name.
    ReadOnlyStore, StoreFull
        The directory cannot be written.
    """
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
    if path.exists() or path.is_symlink():
        raise NotAStore(f"{path}: there is something already", expected="a path that does not exist yet")
    with translating(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_directory(path) as partial:
            for folder in (SEGMENTS_NAME, JOURNALS_NAME):
                disk.make_directory(partial / folder)
            yield partial
            for folder in (SEGMENTS_NAME, JOURNALS_NAME):
                LocalStorage(partial / folder).sync()
            if path.exists():
                raise NotAStore(f"{path}: was made by another process meanwhile")


def copy_moment(catalog: Catalog, index: LogIndex, partial: Path) -> list[str]:
    """Copy catalog and journal as of one moment; return the names of the segment files that belong to it.

    Writers do not wait: if one changes the catalog meanwhile, the copy begins again.

    Raises
    ------
    StoreLocked
        Others changed the catalog during each of many attempts.
    """
    copy = partial / CATALOG_NAME
    for _ in range(_TRIES):
        index.refresh()
        before = catalog.data_version()
        catalog.copy_to(copy)
        with copy.open("rb+") as file:
            disk.sync(file.fileno())
        index.refresh()  # the journal may have grown; a record that needs a newer catalog comes with one
        content = None if index.journal is None else index.journal.content()
        if catalog.data_version() == before:
            break
        copy.unlink()
    else:
        raise StoreLocked(f"{catalog.where}: was changed during every attempt to copy it", hint="Try again.")
    if content is not None:
        LocalStorage(partial / JOURNALS_NAME).write(index.journal_name, [content])
    return [file.name for segment in index.manifest().segments for file in segment.files.values()]


def copy_segments(storage: Storage, names: Iterable[str], partial: Path) -> None:
    """Copy segment files while a lease protects them. Raises FileNotFoundError."""
    copy = LocalStorage(partial / SEGMENTS_NAME)
    for name in names:
        copy.write(name, [storage.read(name)])
