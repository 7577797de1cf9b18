"""A store written against `eventlab.store.api` alone: its commits are a Python list, and nothing is on disk."""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from eventlab.errors import StoreError
from eventlab.events.frame import EventFrame
from eventlab.events.types import EventType
from eventlab.store.api import (
    ENVELOPE_TYPES,
    Batch,
    Block,
    Checkpoint,
    Commit,
    Handlers,
    Head,
    Int64Array,
    Late,
    Mark,
    PendingHead,
    Receipt,
    Request,
    Selection,
    all_columns,
    at_positions,
    block_rows,
    check_batches,
    check_clocks,
    check_expected,
    check_late,
    check_writable,
    commit_time,
    default_columns,
    earlier_receipt,
    event_frame,
    find_computed,
    frame_schema,
    matching,
    meaning,
    number_batches,
    slabs,
    to_frame,
)


@dataclass(frozen=True, eq=False)
class FullCommit(Commit):
    """A commit with its events."""

    blocks: list[Block]


class ListStore:
    """Implements `Store` by having its methods."""

    path, read_only = ":memory:", False

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self.store_id = str(uuid.uuid4())
        self.closed = False
        self.names: list[str] = []
        self.checkpoints = ListCheckpoints(self)
        self._clock, self._lock = clock, threading.RLock()
        self._commits: list[FullCommit] = []
        self._versions: list[EventType] = []
        self._heads: dict[str, PendingHead] = {}
        self._backdated: set[str] = set()
        self._ids: dict[str, int] = {}
        self._chunks: dict[tuple[str, int], Receipt] = {}
        self._finished: dict[str, str] = {}
        self._handlers = Handlers(lambda block: self._frame(block, default_columns(block.type)), self._rows_between)
        self._followers: list[Callable[[Collection[str]], None]] = []
        self._listeners: list[Callable[[], None]] = []

    def close(self) -> None:
        self.closed = True

    def _now(self) -> list[FullCommit]:
        """The commits so far: a read works on this list, whatever is appended meanwhile."""
        with self._lock:
            if self.closed:
                raise StoreError("the list store is closed")
            return list(self._commits)

    # -- writing

    def register(self, declared: EventType) -> None:
        with self._lock:
            check_writable([declared], self._versions)
            if declared not in self._versions:
                self._versions.append(declared)

    def commit(
        self,
        batches: Sequence[Batch],
        *,
        expected: Mapping[str, int] | None = None,
        late: Late = "reject",
        source: tuple[str, int] | None = None,
    ) -> Receipt:
        check_late(late)
        with self._lock:
            before = self._now()
            receipt = self._commit(before, batches, expected or {}, late, source)
        if len(self._commits) > len(before):
            for listener in tuple(self._listeners):
                listener()
            self._handlers.dispatch()
            for follower in self._followers:
                follower({name for batch in batches for name in batch.names()})
        return receipt

    def _commit(
        self,
        before: list[FullCommit],
        batches: Sequence[Batch],
        expected: Mapping[str, int],
        late: Late,
        source: tuple[str, int] | None,
    ) -> Receipt:
        items, names = check_batches(batches)
        earlier = self._chunks.get(source) if source is not None else None
        earlier = earlier or earlier_receipt(self, items, names, late)
        if earlier is not None:
            return earlier
        check_expected(expected, lambda name: self._heads[name].version if name in self._heads else 0)
        first, recorded, digest = self.stop_position, None, b""
        if before:
            recorded, digest = before[-1].recorded_at, before[-1].digest
        if not items:
            return Receipt(first - 1, 0, 0, first, recorded or 0)
        heads = self._copies(names)
        check_clocks(items, heads)
        types = check_writable([item.batch.type for item in items], self._versions)
        recorded_at = commit_time(self._clock, recorded)
        made = number_batches(items, heads, first, recorded_at, late)
        digest = self._digest(digest, made.blocks, recorded_at, heads)
        commit = FullCommit(first, made.events, made.late, recorded_at, made.last_version, digest, made.blocks)
        for declared in types.values():  # nothing fails from here on
            self.register(declared)
        self._heads.update((head.name, replace(head, is_new=False, backdated=False)) for head in heads)
        self.names += [head.name for head in heads if head.is_new]
        self._backdated.update(head.name for head in heads if head.backdated)
        self._ids.update(supplied_ids(made.blocks))
        self._commits.append(commit)
        if source is not None:
            self._chunks[source] = commit.receipt
        self._handlers.enqueue(first, commit.stop_position, commit.blocks)
        return commit.receipt

    def _copies(self, names: Sequence[str]) -> list[PendingHead]:
        """Heads that a commit may move on, and that are dropped where it fails."""
        new = iter(range(len(self.names), len(self.names) + len(names)))
        return [
            replace(self._heads[name])
            if name in self._heads
            else PendingHead(next(new), name, 0, -1, 0, None, is_new=True)
            for name in names
        ]

    def _digest(
        self, previous: bytes, blocks: Sequence[Block], recorded_at: int, heads: Sequence[PendingHead]
    ) -> bytes:
        found = hashlib.sha256(previous + recorded_at.to_bytes(8, "little", signed=True))
        names = {head.no: head.name for head in heads}
        for block in blocks:
            columns = [*all_columns(block.type)]
            columns.remove("recorded_at")
            frame = to_frame(
                block, columns, name_of=names.__getitem__, store_id=self.store_id, recorded_at=np.zeros_like
            )
            found.update(frame.write_json().encode())
        return found.digest()

    def subscribe(
        self, name: str, handler: Callable[[pl.DataFrame], None], start: int | None = None
    ) -> Callable[[], None]:
        with self._lock:
            undo = self._handlers.subscribe(name, handler, start, self.stop_position)
        self._handlers.dispatch()
        return undo

    def follow(self, follower: Callable[[Collection[str]], None]) -> None:
        self._followers.append(follower)

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def chunk_receipt(self, identity: str, chunk: int) -> Receipt | None:
        return self._chunks.get((identity, chunk))

    def source_receipt(self, identity: str) -> str | None:
        return self._finished.get(identity)

    def finish_source(self, identity: str, receipt: str) -> None:
        self._finished[identity] = receipt

    # -- known events, for `earlier_receipt`

    def positions(self, ids: Sequence[str]) -> Mapping[str, int]:
        return {given: self._ids[given] for given in ids if given in self._ids}

    def block_at(self, declared: EventType, positions: Int64Array) -> Block | None:
        selection = Selection({declared.name: [field.name for field in declared]}, types={declared.name: declared})
        return at_positions(block_rows(self._blocks(), declared.name, self._request(selection)), positions)

    def receipt_at(self, position: int) -> Receipt:
        return next(commit.receipt for commit in self._now() if commit.stop_position > position)

    # -- reading

    @property
    def stop_position(self) -> int:
        commits = self._now()
        return commits[-1].stop_position if commits else 0

    @property
    def head_digest(self) -> str | None:
        commits = self._now()
        return commits[-1].digest.hex() if commits else None

    def types(self) -> Mapping[str, EventType]:
        self._now()
        return {declared.name: declared for declared in self._versions}

    def aggregate_ids(self, pattern: str = "*") -> list[str]:
        return matching(self.names, pattern)

    def aggregates_with(self, types: Collection[str]) -> set[str]:
        blocks = [block for block in self._blocks() if block.type.name in types]
        return {self.names[number] for block in blocks for number in np.unique(block.aggregate).tolist()}

    def heads(self, aggregates: Collection[str] | None = None) -> list[Head]:
        self._now()
        wanted = self.names if aggregates is None else [name for name in set(aggregates) if name in self._heads]
        heads = (self._heads[name] for name in sorted(wanted))
        return [Head(head.name, head.version, head.position, head.timestamp) for head in heads]

    def times_ascend_in(self, aggregate: str) -> bool:
        return aggregate not in self._backdated

    def first_versions(self, aggregate: str) -> Int64Array:
        return np.ones(1, np.int64)

    def position_at(self, known_at: int) -> int:
        return max((one.stop_position for one in self._now() if one.recorded_at <= known_at), default=0)

    def recorded_at(self, positions: Int64Array) -> Int64Array:
        commits = self._now()
        stops = [commit.stop_position for commit in commits]
        recorded = np.array([commit.recorded_at for commit in commits], np.int64)
        found: Int64Array = recorded[np.searchsorted(stops, positions, "right")]
        return found

    def digest_at(self, stop_position: int) -> bytes | None:
        return next((one.digest for one in self._now() if one.stop_position == stop_position), None)

    def count_commits(self) -> int:
        return len(self._now())

    def count_aggregates(self) -> int:
        return len(self.names)

    def bytes_on_disk(self) -> int:
        return sum(column.nbytes for block in self._blocks() for column in block.columns.values())

    def frames(self, selection: Selection) -> Iterator[EventFrame]:
        found = list(slabs(self._blocks(), self._request(selection)))
        return iter([event_frame(found, self.names)] if found else [])

    def rows(
        self,
        declared: EventType,
        *,
        aggregates: Sequence[str] | None = None,
        start: int | None = None,
        stop: int | None = None,
        columns: Sequence[str] | None = None,
        first_position: int = 0,
        stop_position: int | None = None,
        computed_ids: bool = True,
    ) -> Iterator[pl.DataFrame]:
        wanted = tuple(frame_schema(declared, columns))
        payload = [name for name in wanted if name not in ENVELOPE_TYPES]
        selection = Selection(
            {declared.name: payload}, aggregates=aggregates, start_position=first_position,
            stop_position=stop_position, since_time=start, until_time=None if stop is None else stop - 1,
            types={declared.name: declared},
        )  # fmt: skip
        blocks = block_rows(self._blocks(), declared.name, self._request(selection))
        return (self._frame(block, wanted, computed_ids=computed_ids) for block in blocks)

    def find(self, event_id: str) -> pl.DataFrame | None:
        position = self._ids.get(event_id)
        if position is None:
            heads = [(head.aggregate_id, head.version) for head in self.heads()]
            event = find_computed(self.store_id, event_id, heads)
            position = None if event is None else self._position_of(*event)
        if position is None or (position in self._ids.values() and event_id not in self._ids):
            return None
        types = self.types()
        found = (self.block_at(meaning(name, types), np.array([position])) for name in types)
        return next(self._frame(block, all_columns(block.type)) for block in found if block is not None)

    def _position_of(self, aggregate: str, version: int) -> int:
        number = self._heads[aggregate].no
        for block in self._blocks():
            at = np.flatnonzero((block.aggregate == number) & (block.version == version))
            if len(at):
                return int(block.position[at[0]])
        raise AssertionError("versions are gapless")

    def _blocks(self) -> list[Block]:
        return [block for commit in self._now() for block in commit.blocks]

    def _request(self, selection: Selection) -> Request:
        numbers = {name: number for number, name in enumerate(self.names)}
        return Request.of(selection, numbers, self.types(), self._versions, self.stop_position)

    def _rows_between(self, name: str, first: int, stop: int) -> Iterator[pl.DataFrame]:
        return self.rows(meaning(name, self.types()), first_position=first, stop_position=stop)

    def _frame(self, block: Block, columns: Sequence[str], *, computed_ids: bool = True) -> pl.DataFrame:
        return to_frame(
            block, columns, computed_ids=computed_ids, name_of=self.names.__getitem__, store_id=self.store_id,
            recorded_at=self.recorded_at,
        )  # fmt: skip


def supplied_ids(blocks: Sequence[Block]) -> Iterator[tuple[str, int]]:
    for block in blocks:
        given = [None] * len(block) if block.event_id is None else block.event_id.to_pylist()
        yield from ((one, at) for one, at in zip(given, block.position.tolist(), strict=True) if one is not None)


class ListCheckpoints:
    def __init__(self, store: ListStore) -> None:
        self._store = store
        self._kept: dict[tuple[str, str], Checkpoint] = {}

    def load(self, name: str, fingerprint: str) -> Checkpoint | None:
        return self._kept.get((name, fingerprint))

    def others(self, name: str, fingerprint: str) -> bool:
        return any(one == name and other != fingerprint for one, other in self._kept)

    def save(
        self,
        name: str,
        fingerprint: str,
        position: int,
        state: memoryview,
        *,
        had: bool,
        discard: Mark | None,
        supersede: bool,
    ) -> bool:
        digest, there = self._store.digest_at(position), self.load(name, fingerprint)
        if digest is None or (there is None and had and self.others(name, fingerprint)):
            return False
        if there is None or there.mark == discard or there.mark.position < position:
            mark = Mark(position, digest, saved_at=time.time_ns(), crc=0)
            self._kept[name, fingerprint] = Checkpoint(mark, bytes(state))
        if supersede:
            for key in [key for key in self._kept if key[0] == name and key[1] != fingerprint]:
                del self._kept[key]
        return True
