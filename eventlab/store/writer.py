"""Writing: commits and sealing, each one transaction. Everything here runs under the store's lock."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import numpy as np

from eventlab.errors import InvalidEvent, SchemaMismatch, StoreError, WrongVersion
from eventlab.events.types import EventType
from eventlab.store import chain
from eventlab.store.blocks import Block
from eventlab.store.catalog import Catalog, as_store_error, translated
from eventlab.store.contract import Batch, Late, Receipt
from eventlab.store.identity import COMMIT, Identities, receipt_of
from eventlab.store.intake import Assigned, Stream, assign, check_clocks, incoming
from eventlab.store.reader import Reader
from eventlab.store.segments import SegmentFile, Written, write_segment
from eventlab.store.tail import Part, adjacent_runs, to_blob
from eventlab.store.vault import Vault, new_name
from eventlab.store.view import Knowledge, Segment

BULK_ROWS = 8_192
"""A commit of this many events goes straight into segment files; one of fewer is a row of the tail."""

SEGMENT_ROWS = 4_194_304
"""No segment holds more events: what a reader needs in memory at once."""

TAIL_COMMITS, TAIL_ROWS, TAIL_BYTES = 4_096, 65_536, 8 * 1024 * 1024
"""The tail is sealed when it passes any of these."""

NameOf = Callable[[int], str]


class Writer:
    """The one place that changes a store."""

    def __init__(
        self, catalog: Catalog, vault: Vault, knowledge: Knowledge, reader: Reader, clock: Callable[[], int]
    ) -> None:
        self._catalog = catalog
        self._vault = vault
        self._knowledge = knowledge
        self._clock = clock
        self.identities = Identities(catalog, knowledge, reader)
        self._recorded_at = 0

    @contextmanager
    def _writing(self) -> Iterator[list[str]]:
        """A write transaction. Whatever fails inside, nothing remains: neither rows nor the files named in the list."""
        written: list[str] = []
        committing = False
        try:
            self._catalog.begin_write()
            self._knowledge.refresh()
            yield written
            committing = True
            self._catalog.commit()
        except BaseException as error:
            self._catalog.rollback()
            # A COMMIT that was interrupted, or said that it failed, may stand, and name these files. If not, they are
            # swept when the store is next opened.
            for name in () if committing else written:
                self._vault.remove(name)
            if isinstance(error, sqlite3.Error):
                raise translated(error, self._catalog.where) from error
            if isinstance(error, OSError) and not isinstance(error, StoreError):
                raise as_store_error(error, self._catalog.where) from error
            raise

    def commit(
        self,
        batches: Sequence[Batch],
        expected: Mapping[str, int],
        late: Late,
        source: tuple[str, int] | None,
    ) -> tuple[Receipt, list[Block]]:
        """See `Store.commit`. The blocks are those written, none where an earlier receipt came back."""
        items, names = incoming(batches)
        with self._writing() as written:
            if source is not None and (earlier := self.chunk_receipt(*source)) is not None:
                return earlier, []
            earlier = self.identities.earlier_receipt(items, names, late)
            if earlier is not None:
                return earlier, []
            streams = self._streams(names)
            self._check_expected(expected, streams)
            if not items:
                return self._empty_receipt(), []
            check_clocks(items, streams)
            types = self._types({item.batch.type.name: item.batch.type for item in items})
            first = self._knowledge.stop_position
            recorded_at = self._now()
            made = assign(items, streams, first, recorded_at, late)
            new = [stream.name for stream in streams if stream.is_new]
            segments = self._write(made, streams, types, first, recorded_at, source, written)
            receipt = Receipt(
                first + _count(made) - 1, made.last_version, _count(made), first, recorded_at, made.clamped
            )
        try:
            self._learn(made, new, types, segments)
        except BaseException:  # an interrupt: the commit stands, and is read back when next needed
            self._knowledge.forget()
            raise
        return receipt, made.blocks

    def _write(
        self,
        made: Assigned,
        streams: Sequence[Stream],
        types: Mapping[str, tuple[int, EventType]],
        first: int,
        recorded_at: int,
        source: tuple[str, int] | None,
        written: list[str],
    ) -> tuple[list[Segment], bytes, int]:
        """The statements of a commit: new segments where it was a bulk one, its digest, the bytes of its blob."""
        count = _count(made)
        execute = self._catalog.execute
        known = self._knowledge.names
        fresh = {stream.no: stream.name for stream in streams if stream.is_new}

        def name_of(number: int) -> str:
            return known[number] if number < len(known) else fresh[number]

        self._upsert_heads(streams)
        previous = self._knowledge.digest or chain.GENESIS

        def digest() -> bytes:
            leaves = [leaf for block in made.blocks for leaf in chain.block_leaves(block, first, count, name_of)]
            return chain.commit_digest(previous, first, count, recorded_at, leaves)

        source_no = None if source is None else self._source_no(source[0])
        chunk = None if source is None else source[1]
        insert = "INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        segments: list[Segment] = []
        size = 0
        if count < BULK_ROWS:
            proof = digest()
            execute(insert, (first, count, recorded_at, made.last_version, made.clamped, proof, source_no, chunk))
            blob = to_blob([(types[block.type.name][0], block) for block in made.blocks])
            size = len(blob)
            execute("INSERT INTO tail VALUES (?, ?, ?, ?)", (first, first + count, zlib.crc32(blob), blob))
        else:
            with ThreadPoolExecutor(max_workers=1) as pool:  # hashing releases the GIL, and so does encoding
                proving = pool.submit(digest)
                segments = self._write_segments(made.blocks, first, first + count, types, name_of, written)
                proof = proving.result()
            execute(insert, (first, count, recorded_at, made.last_version, made.clamped, proof, source_no, chunk))
        self.identities.insert(made.blocks)
        return segments, proof, size

    def _learn(
        self,
        made: Assigned,
        new: Sequence[str],
        types: Mapping[str, tuple[int, EventType]],
        outcome: tuple[list[Segment], bytes, int],
    ) -> None:
        """After the transaction: what this process now knows without reading it back."""
        segments, proof, size = outcome
        knowledge = self._knowledge
        knowledge.learn_names([(name,) for name in new])
        for number, declared in types.values():
            if declared.name not in knowledge.types:
                knowledge.learn_type(number, declared)
        first = knowledge.stop_position
        stop = first + _count(made)
        knowledge.advance(stop, self._recorded_at, proof)
        if segments:
            for segment in segments:
                knowledge.learn_segment(segment)
            return
        part = Part(first, stop, 1, size, {block.type.name: block for block in made.blocks})
        knowledge.tail.append([part])
        tail = knowledge.tail
        if tail.commits >= TAIL_COMMITS or tail.rows >= TAIL_ROWS or tail.bytes >= TAIL_BYTES:
            with suppress(StoreError):  # the commit is safe as it is; the next one tries again
                self.seal()

    def _now(self) -> int:
        moment = self._clock()
        if isinstance(moment, bool) or not isinstance(moment, int):
            raise InvalidEvent("the clock must give int nanoseconds", got=moment)
        last = self._knowledge.recorded_at
        self._recorded_at = moment if last is None else max(moment, last + 1)
        return self._recorded_at

    def _empty_receipt(self) -> Receipt:
        stop = self._knowledge.stop_position
        return Receipt(stop - 1, 0, 0, stop, self._knowledge.recorded_at or 0)

    # -- aggregates

    def _streams(self, names: Sequence[str]) -> list[Stream]:
        query = "SELECT no, name, version, position, timestamp, clock FROM aggregates WHERE name = ?"
        streams = []
        next_no = len(self._knowledge.names)
        for name in names:
            row = self._catalog.execute(query, (name,)).fetchone()
            if row is None:
                streams.append(Stream(next_no, name, 0, -1, 0, None, is_new=True))
                next_no += 1
            else:
                no, _, version, position, timestamp, clock = row
                streams.append(Stream(no, name, version, position, timestamp, clock, is_new=False))
        return streams

    def _check_expected(self, expected: Mapping[str, int], streams: Sequence[Stream]) -> None:
        versions = {stream.name: stream.version for stream in streams}
        for name, version in expected.items():
            if isinstance(version, bool) or not isinstance(version, int):
                raise InvalidEvent("expected_version must be an int", got=version)
            actual = versions[name] if name in versions else self._streams([name])[0].version
            if actual != version:
                raise WrongVersion(
                    f"{name!r} is at another version than expected",
                    got=f"version {actual}",
                    expected=f"version {version}",
                    hint="Another append came first: read the state again, decide again, append again.",
                )

    def _upsert_heads(self, streams: Sequence[Stream]) -> None:
        self._catalog.executemany(
            "INSERT INTO aggregates VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (no) DO UPDATE SET "
            "version = excluded.version, position = excluded.position, timestamp = excluded.timestamp, "
            "clock = excluded.clock",
            [(s.no, s.name, s.version, s.position, s.timestamp, s.clock) for s in streams],
        )

    # -- event types and sources

    def _types(self, used: Mapping[str, EventType]) -> dict[str, tuple[int, EventType]]:
        """Numbers of the event types used, those new to the store inserted."""
        if any(name not in self._knowledge.types for name in used):
            self._knowledge.refresh_types()  # another process may have registered one without a commit
        numbers = {}
        added = 0
        for name, declared in used.items():
            known = self._knowledge.types.get(name)
            if known is None:
                number = len(self._knowledge.types) + added
                added += 1
                self._catalog.execute(
                    "INSERT INTO event_types VALUES (?, ?, ?)", (number, name, declared.schema_json())
                )
                numbers[name] = (number, declared)
                continue
            if known is not declared and known != declared:
                raise mismatch(declared, known)
            numbers[name] = (self._knowledge.type_numbers[name], known)
        return numbers

    def register(self, declared: EventType) -> None:
        with self._writing():
            self._knowledge.refresh_types()
            self._types({declared.name: declared})
        self._knowledge.refresh_types()

    def _source_no(self, identity: str) -> int:
        self._catalog.execute("INSERT OR IGNORE INTO sources (identity) VALUES (?)", (identity,))
        row = self._catalog.execute("SELECT no FROM sources WHERE identity = ?", (identity,)).fetchone()
        return int(row[0])

    def finish_source(self, identity: str, receipt: str) -> None:
        with self._writing():
            number = self._source_no(identity)
            self._catalog.execute("UPDATE sources SET receipt = ? WHERE no = ?", (receipt, number))

    def chunk_receipt(self, identity: str, chunk: int) -> Receipt | None:
        row = self._catalog.execute(
            f"SELECT {COMMIT} FROM commits JOIN sources ON no = source WHERE identity = ? AND chunk = ?",  # noqa: S608  constants; values are bound
            (identity, chunk),
        ).fetchone()
        return None if row is None else receipt_of(row)

    # -- segments

    def _write_segments(
        self,
        blocks: Sequence[Block],
        first: int,
        stop: int,
        types: Mapping[str, tuple[int, EventType]],
        name_of: NameOf,
        written: list[str],
    ) -> list[Segment]:
        """Write and sync files for positions ``first:stop`` and name them in the catalog."""
        segments = []
        for begin in range(first, stop, SEGMENT_ROWS):
            end = min(begin + SEGMENT_ROWS, stop)
            parts = [part for part in (block.between(begin, end) for block in blocks) if len(part)]
            self._catalog.execute("INSERT INTO segments VALUES (?, ?)", (begin, end))
            files = {}
            for part in parts:
                content = write_segment(part, name_of)
                name = new_name(begin)
                written.append(name)
                self._vault.write(name, content.content)
                number, declared = types[part.type.name]
                files[part.type.name] = self._name_file(begin, end, number, declared, name, content)
            segments.append(Segment(begin, end, files))
        self._vault.sync()
        return segments

    def _name_file(
        self, first: int, stop: int, number: int, declared: EventType, name: str, made: Written
    ) -> SegmentFile:
        size = made.content.size
        no = self._catalog.execute(
            "INSERT INTO files (segment, event_type, name, rows, bytes, footer_bytes, footer_crc) "
            "VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING no",
            (first, number, name, made.rows, size, made.footer_bytes, made.footer_crc),
        ).fetchone()[0]
        runs = np.insert(made.runs, 1, no, axis=1)
        self._catalog.executemany("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", runs.tolist())
        return SegmentFile(no, first, stop, declared, name, made.rows, size, made.footer_bytes, made.footer_crc)

    def seal(self) -> int:
        """Turn the whole tail into segments; returns the number of events."""
        knowledge = self._knowledge
        with self._writing() as written:
            segments = []
            types = {name: (knowledge.type_numbers[name], declared) for name, declared in knowledge.types.items()}
            runs = adjacent_runs(knowledge.tail.parts)
            for part in runs:
                segments += self._write_segments(
                    list(part.blocks.values()), part.first_position, part.stop_position, types,
                    knowledge.names.__getitem__, written,
                )  # fmt: skip
            if runs:
                self._check_tail(runs)
                self._catalog.execute("DELETE FROM tail")
        try:
            for segment in segments:
                knowledge.learn_segment(segment)
        except BaseException:
            knowledge.forget()
            raise
        if runs:
            self._catalog.tidy()
        return sum(part.stop_position - part.first_position for part in runs)

    def _check_tail(self, runs: Sequence[Part]) -> None:
        """Raise StoreError unless what was decoded is all of the tail: what is about to be deleted is nowhere else."""
        query = "SELECT sum(stop_position - first_position), min(first_position), max(stop_position) FROM tail"
        there = self._catalog.execute(query).fetchone()
        found = sum(run.stop_position - run.first_position for run in runs)
        if there != (found, runs[0].first_position, runs[-1].stop_position):
            raise StoreError(
                f"{self._catalog.where}: the tail is not what this process knows of it",
                got=f"{found} events",
                expected=f"{there[0]} events",
                hint="Open the store again; nothing was changed.",
            )

    def sweep(self) -> None:
        """Remove files that no commit names: what a killed writer left. Skipped while another writer is at work."""
        found = self._vault.names()
        if not found:
            return
        if not self._catalog.try_begin_write():
            return
        try:
            named = {name for (name,) in self._catalog.execute("SELECT name FROM files")}
            for name in self._vault.names() - named:
                self._vault.remove(name)
        finally:
            self._catalog.rollback()


def mismatch(declared: EventType, known: EventType) -> SchemaMismatch:
    """The error for an event type that is not what the store knows by its name."""
    return SchemaMismatch(
        f"{declared.name!r} was written with other fields",
        got=_described(declared),
        expected=_described(known),
        hint="Give the new type another name, or declare it as the store knows it.",
    )


def _described(declared: EventType) -> str:
    fields = ", ".join(f"{field.name}: {field.kind}{' | None' if field.nullable else ''}" for field in declared)
    return f"{fields} (schema_version {declared.schema_version})"


def _count(made: Assigned) -> int:
    return sum(len(block) for block in made.blocks)
