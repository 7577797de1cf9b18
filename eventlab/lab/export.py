"""`lab.export`: events as files that carry a proof; a file or folder appears when it is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal, TypeAlias

import polars as pl

from eventlab.errors import InvalidEvent, StoreFull
from eventlab.events.types import EventType
from eventlab.interchange import columnar, folder, proof, stream
from eventlab.interchange.pieces import bounded, columns_of
from eventlab.runtime.progress import tqdm
from eventlab.storage.local import LocalStorage, new_directory
from eventlab.store.api import EventReader
from eventlab.store.names import EventClass, aggregates_named, type_named

Format: TypeAlias = Literal["protobuf", "parquet", "arrow"]

_SUFFIXES: dict[str, Format] = {
    ".pb": "protobuf",
    ".binpb": "protobuf",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}


@dataclass(frozen=True, slots=True)
class ExportReceipt:
    """What an export wrote.

    Attributes
    ----------
    path : Path
        A file, or a folder with a file for each event type.
    format : {"protobuf", "parquet", "arrow"}
    count : int
        Events.
    counts : dict of str to int
        The same by event type.
    bytes : int
        Size of all files.
    sha256 : str
        The proof that the file, or the folder's manifest, carries.
    stop_position : int
        End of the export: positions of the log from here on are not in it.
    """

    path: Path
    format: Format
    count: int
    counts: dict[str, int]
    bytes: int
    sha256: str
    stop_position: int


@dataclass(frozen=True, slots=True)
class Scope:
    """The events to export."""

    event_class: EventClass | None
    aggregate_id: str | None
    start: int | None
    stop: int | None


def export(
    store: EventReader, path: str | Path, scope: Scope, *, format: Format | None, progress: bool  # noqa: A002
) -> ExportReceipt:  # fmt: skip
    """See :meth:`eventlab.lab.lab.Lab.export`."""
    target = Path(path)
    chosen = _format(target, format)
    _check_target(target)
    sources = _Sources(store, scope, progress=progress)
    with sources.bar:
        try:
            sealed = _write(target, chosen, store.store_id, sources)
        except OSError as error:
            raise StoreFull(f"{target}: could not be written: {error}", hint="Nothing was left of it.") from error
    count = sum(sources.counts.values())
    size = sum(one.size for one in sealed)
    return ExportReceipt(target, chosen, count, sources.counts, size, sealed[-1].sha256, sources.stop_position)


def _format(target: Path, given: Format | None) -> Format:
    by_suffix = _SUFFIXES.get(target.suffix.lower())
    if given is not None and given not in _SUFFIXES.values():
        raise InvalidEvent("unknown format", got=given, expected="protobuf, parquet or arrow")
    if by_suffix is not None and given not in (None, by_suffix):
        raise InvalidEvent("the path's suffix means another format", got=f"{target.suffix} and {given!r}")
    if by_suffix is None and (given == "protobuf" or (given is None and target.suffix)):
        raise InvalidEvent(
            "the path's suffix means no format", got=target.name, expected=f"{', '.join(_SUFFIXES)}, or a folder"
        )
    return by_suffix or given or "parquet"


def _is_file(target: Path) -> bool:
    """Whether a path is one of a file, by its suffix."""
    return target.suffix.lower() in _SUFFIXES


def _check_target(target: Path) -> None:
    if not target.parent.is_dir():
        raise InvalidEvent("there is no such folder", got=str(target.parent))
    if target.is_dir() and (_is_file(target) or any(target.iterdir())):
        raise InvalidEvent("the folder has something in it", got=str(target), expected="a new or an empty one")
    if target.exists() and not target.is_dir() and not _is_file(target):
        raise InvalidEvent("there is a file of this name", got=str(target))


class _Sources:
    """The events to export, by type, all as of one moment of the log."""

    def __init__(self, store: EventReader, scope: Scope, *, progress: bool) -> None:
        self.stop_position = store.stop_position
        self.counts: dict[str, int] = {}
        self._store = store
        self._scope = scope
        self._aggregates = aggregates_named(store, scope.aggregate_id)
        names = store.types() if scope.event_class is None else (scope.event_class,)
        self._types = [type_named(store, of) for of in names]
        everything = scope == Scope(None, None, None, None)
        self.bar = tqdm(
            total=self.stop_position if everything else None, unit="event", unit_scale=True, desc="export",
            disable=not progress, leave=None,
        )  # fmt: skip

    def types(self) -> list[tuple[EventType, Iterator[pl.DataFrame]]]:
        """Types with their events in bounded pieces; types without events are left out.

        Raises
        ------
        InvalidEvent
            No type has events.
        """
        found: list[tuple[EventType, Iterator[pl.DataFrame]]] = []
        for declared in self._types:
            frames = self._counted(declared)
            first = next(frames, None)
            if first is not None:
                found.append((declared, chain([first], frames)))
        if not found:
            raise InvalidEvent("there is no event to export", hint="lab.info() shows what is there.")
        return found

    def _counted(self, declared: EventType) -> Iterator[pl.DataFrame]:
        frames = self._store.rows(
            declared,
            aggregates=self._aggregates,
            start=self._scope.start,
            stop=self._scope.stop,
            columns=columns_of(declared),
            stop_position=self.stop_position,
            computed_ids=False,
        )
        for frame in bounded(frames):
            self.counts[declared.name] = self.counts.get(declared.name, 0) + len(frame)
            self.bar.update(len(frame))
            yield frame


def _write(target: Path, chosen: Format, store_id: str, sources: _Sources) -> list[proof.Sealed]:
    """Write a file, or a folder whose manifest is the last of the files returned."""
    types = sources.types()
    if chosen == "protobuf":
        return [_write_file(target, partial(stream.buffers, store_id, types))]
    if _is_file(target):
        if len(types) > 1:
            raise InvalidEvent(
                f"{target.name} holds events of one type, and there are more",
                got=", ".join(declared.name for declared, _ in types),
                hint="Name one with event_class=; or give a folder, or a .pb file, for all.",
            )
        ((declared, frames),) = types
        return [_write_file(target, partial(columnar.buffers, chosen, declared, store_id, frames))]
    sealed, described = [], {}
    with new_directory(target) as directory:
        for declared, frames in types:
            file = directory / folder.file_of(declared.name, chosen)
            sealed.append(_write_file(file, partial(columnar.buffers, chosen, declared, store_id, frames)))
            described[declared.name] = sources.counts[declared.name], sealed[-1].sha256
        manifest = partial(folder.manifest, chosen, store_id, described)
        sealed.append(_write_file(directory / folder.MANIFEST, manifest))
    return sealed


def _write_file(path: Path, content: Callable[[str], Iterator[bytes]]) -> proof.Sealed:
    """Write one file, whose content gets a placeholder for its proof."""
    storage, sealed = LocalStorage(path.parent), proof.Sealed()
    storage.write(path.name, sealed.of(content(sealed.placeholder)))
    storage.sync()
    return sealed
