"""Flipped bits, cut, zeroed, swapped and missing files, and hands in the catalog: told, and never returned as data."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from eventlab.errors import EventlabError, StoreCorrupt
from eventlab.store.api import Selection
from eventlab.store.event_log import EventLog
from eventlab.testing.events import batch, folded
from tests.faults.power import Image, put, taken
from tests.faults.probing import Truth, probe, truth_of
from tests.faults.world import BULK, Twin, content_of, history, opened, signal, trades


@dataclass
class Sound:
    """The files of an undamaged store, and what it answers."""

    image: Image
    truth: Truth

    def names(self, part: str) -> list[str]:
        return [name for name, content in self.image.items() if content and part in name]


def closed_store(folder: Path) -> Image:
    with opened(folder) as store:
        history(Twin(store))
    return taken(folder)


def killed_store(folder: Path) -> Image:
    """The files as a killed process leaves them: a commit is in the catalog's write-ahead log alone."""
    store = opened(folder)
    twin = Twin(store)
    history(twin)
    twin.append([*trades(BULK, ("market/BTC",)), signal()])
    twin.append(trades(1))
    image = taken(folder)
    store.close()
    assert image["catalog.sqlite-wal"]
    return image


MADE = {"closed": closed_store, "killed": killed_store}


@pytest.fixture(params=list(MADE))
def sound(request: pytest.FixtureRequest, folder: Path) -> Sound:
    return made(request.param, folder)


def made(kind: str, folder: Path) -> Sound:
    image = MADE[kind](folder / "made")
    put(image, folder / "truth")
    return Sound(image, truth_of(folder / "truth"))


def check_told(sound: Sound, folder: Path, damaged: Image, what: str, *, read_only: bool = True) -> None:
    """Every answer of the damaged store is an error or the truth, and what `verify` passes is the truth."""
    path = folder / "damaged"
    put(damaged, path)
    try:
        found = probe(path, sound.truth, read_only=read_only)
        # A killed writer's catalog has no sums until the next close: there, what reading misses is the proof's to find.
        unguarded = what.startswith("catalog.sqlite") and bool(damaged.get("catalog.sqlite-wal"))
        assert not found.silent or (unguarded and not found.verified), f"wrong without an error: {found.silent}"
    except Exception as error:
        error.add_note(what)
        raise
    finally:
        shutil.rmtree(path)


def flips(sound: Sound, part: str, count: int | None, seed: int) -> Iterator[tuple[str, int, Image]]:
    """Images with one bit flipped: a sample, each file by its share, or every bit."""
    places = [(name, at) for name in sound.names(part) for at in range(len(sound.image[name] or b""))]
    chosen = random.Random(seed).sample(places, min(count, len(places))) if count is not None else places
    for name, at in chosen:
        for bit in [(at * 5 + seed) % 8] if count is not None else range(8):
            content = bytearray(sound.image[name] or b"")
            if not content[at] and not any(content[max(at - 64, 0) : at + 64]) and at % 16:
                continue  # of a stretch of nothing a few are enough
            content[at] ^= 1 << bit
            yield name, at * 8 + bit, sound.image | {name: bytes(content)}


PARTS = {"catalog.sqlite": 240, "catalog.checksums": 30, "journal/": 180, "segments/": 90}


@pytest.mark.parametrize("part", list(PARTS))
def test_a_flipped_bit_is_told(sound: Sound, folder: Path, part: str):
    for seed, read_only in ((0, True), (1, False)):
        for name, bit, damaged in flips(sound, part, PARTS[part] // 2, seed):
            check_told(sound, folder, damaged, f"bit {bit} of {name}", read_only=read_only)


@pytest.mark.slow
@pytest.mark.parametrize("part", [*PARTS])
def test_every_flipped_bit_is_told(sound: Sound, folder: Path, part: str):
    for name, bit, damaged in flips(sound, part, None, 0):
        check_told(sound, folder, damaged, f"bit {bit} of {name}")


@pytest.mark.parametrize("part", ["catalog.sqlite", "journal/", "segments/"])
def test_cut_and_zeroed_files_are_told(sound: Sound, folder: Path, part: str):
    for name in sound.names(part):
        content = sound.image[name] or b""
        used = len(content.rstrip(b"\0"))
        for step in range(8):
            at = used * step // 8
            check_told(sound, folder, sound.image | {name: content[:at]}, f"{name} cut to {at}")
            zeroed = content[:at] + bytes(min(512, len(content) - at)) + content[at + 512 :]
            check_told(sound, folder, sound.image | {name: zeroed}, f"{name} zeroed from {at}")


def test_missing_files_are_told(sound: Sound, folder: Path):
    for name in (*sound.names("journal/"), *sound.names("segments/"), "catalog.sqlite", "catalog.sqlite-wal"):
        missing = {other: content for other, content in sound.image.items() if other != name}
        check_told(sound, folder, missing, f"{name} missing")


def test_files_in_each_others_place_are_told(sound: Sound, folder: Path):
    segments = sound.names("segments/")
    for one in segments:
        for other in segments:
            if one != other:
                check_told(sound, folder, sound.image | {one: sound.image[other]}, f"{other} in place of {one}")
    swapped = sound.image | {segments[0]: sound.image[segments[1]], segments[1]: sound.image[segments[0]]}
    check_told(sound, folder, swapped, "two segment files swapped")


def test_files_of_another_store_are_told(sound: Sound, folder: Path):
    other = closed_store(folder / "other")
    for part in ("catalog.sqlite", "journal/", "segments/"):
        mine, theirs = sound.names(part), [name for name in other if part in name and other[name]]
        for name, from_other in zip(mine, theirs, strict=False):
            if name.endswith(("-wal", "-shm")):
                continue
            check_told(sound, folder, sound.image | {name: other[from_other]}, f"{name} of another store")


def test_a_lost_end_of_the_write_ahead_log_is_told_and_deletes_nothing(folder: Path):
    """SQLite takes what does not fit for the end of its log. The journal knows how far the store went."""
    sound = made("killed", folder)
    wal = sound.image["catalog.sqlite-wal"] or b""
    for at in (0, 40, len(wal) // 2, len(wal) - 5_000):
        cut, flipped = wal[:at], bytearray(wal)
        flipped[at] ^= 1
        for content in (cut, bytes(flipped)):
            path = folder / "lost"
            put(sound.image | {"catalog.sqlite-wal": content}, path)
            with opened(path) as store, pytest.raises(StoreCorrupt):
                content_of(store)
            with opened(path) as store, pytest.raises(StoreCorrupt):
                store.commit([batch(1)])
            assert {file.name for file in (path / "segments").iterdir()} == {
                Path(name).name for name in sound.names("segments/")
            }, "the files of the lost commit are kept"
            shutil.rmtree(path)


# -- what is intact


def test_what_is_intact_stays_readable(folder: Path):
    with opened(folder / "lab") as store:
        store.commit([batch(BULK, "one")])
        store.commit([batch(BULK, "two")])
        store.commit([batch(2, "three")])
        store.commit([batch(2, "four")])
        names = [segment.files[0].name for segment in store._manifest().segments]
    (folder / "lab" / "segments" / names[0]).write_bytes(b"gone")
    (journal,) = (folder / "lab" / "journal").iterdir()
    content = bytearray(journal.read_bytes())
    content[content.rindex(b"evR1") - 12] ^= 1  # the end of the blob before
    journal.write_bytes(content)
    with opened(folder / "lab") as store:
        for name, versions in (("two", BULK), ("four", 2)):
            (events,) = folded(store, Selection({"market_data": ["price"]}, aggregates=[name])).values()
            assert [version for version, *_ in events] == list(range(1, versions + 1))
        for name, match in (("one", names[0]), ("three", f"positions {2 * BULK} to {2 * BULK + 1}")):
            with pytest.raises(StoreCorrupt, match=match):
                folded(store, Selection({"market_data": ["price"]}, aggregates=[name]))
        assert store.commit([batch(1, "one")]).version == BULK + 1
        assert store.commit([batch(1, "two")]).version == BULK + 1
        with pytest.raises(StoreCorrupt, match="all before position 0") as caught:
            store.verify()
        report = caught.value.report
        first, second = report.damage
        assert (first.file, first.first_position, first.stop_position) == (f"segments/{names[0]}", 0, BULK)
        assert (second.file, second.first_position) == (f"journal/{journal.name}", 2 * BULK)
        assert (report.ok, report.events, report.proven_events) == (False, 2 * BULK + 6, BULK + 4)
        assert (report.commits, report.proven_commits, report.sound_until) == (6, 4, 0)


def test_verify_says_how_far(folder: Path):
    with opened(folder / "lab") as store:
        for number in range(4):
            store.commit([batch(BULK, f"a{number % 2}")])
        names = [segment.files[0].name for segment in store._manifest().segments]
    (folder / "lab" / "segments" / names[2]).unlink()
    with opened(folder / "lab") as store:
        with pytest.raises(StoreCorrupt, match=f"{names[2]} is missing.*all before position {2 * BULK}") as caught:
            store.verify()
        report = caught.value.report
        assert (report.sound_until, report.proven_events, report.proven_commits) == (2 * BULK, 3 * BULK, 3)
        assert [(piece.first_position, piece.stop_position) for piece in report.damage] == [(2 * BULK, 3 * BULK)]


# -- hands in the catalog


EDITS = (
    "UPDATE meta SET value = 'x' WHERE key = 'journal'",
    "UPDATE meta SET value = '' WHERE key = 'journal'",
    "UPDATE meta SET value = '00000000-0000-4000-8000-000000000000' WHERE key = 'store_id'",
    "DELETE FROM meta WHERE key = 'store_id'",
    "DELETE FROM meta WHERE key = 'journal'",
    "UPDATE event_types SET name = name || 'x' WHERE no = 0",
    "UPDATE event_types SET schema_version = schema_version + 1 WHERE no = 0",
    "UPDATE event_types SET schema = replace(schema, 'price', 'prize') WHERE no = 0",
    "UPDATE event_types SET schema = '{' WHERE no = 0",
    "UPDATE aggregates SET name = 'renamed' WHERE no = 0",
    "UPDATE aggregates SET version = version + 1 WHERE no = 1",
    "UPDATE aggregates SET position = position - 1 WHERE no = 1",
    "UPDATE aggregates SET timestamp = timestamp + 1 WHERE no = 1",
    "UPDATE aggregates SET no = 77 WHERE no = 3",
    "DELETE FROM aggregates WHERE no = 1",
    "UPDATE commits SET first_position = first_position + 1 WHERE first_position = 80",
    "UPDATE commits SET events = events - 1 WHERE first_position = 80",
    "UPDATE commits SET recorded_at = recorded_at + 1 WHERE first_position = 80",
    "UPDATE commits SET last_version = last_version + 1 WHERE first_position = 80",
    "UPDATE commits SET clamped = -1 WHERE first_position = 80",
    "UPDATE commits SET digest = zeroblob(32) WHERE first_position = 80",
    "UPDATE commits SET digest = 'text' WHERE first_position = 80",
    "UPDATE commits SET source = 9 WHERE source IS NOT NULL",
    "UPDATE commits SET chunk = NULL WHERE source IS NOT NULL",
    "DELETE FROM commits WHERE first_position = 80",
    "UPDATE segments SET stop_position = stop_position + 1",
    "UPDATE segments SET first_position = first_position + 1",
    "DELETE FROM segments",
    "UPDATE files SET event_type = 1 - event_type",
    "UPDATE files SET name = 'x.parquet' WHERE no = (SELECT max(no) FROM files)",
    "UPDATE files SET name = '../../secret.parquet' WHERE no = (SELECT max(no) FROM files)",
    "UPDATE files SET rows = rows + 1 WHERE no = (SELECT max(no) FROM files)",
    "UPDATE files SET bytes = bytes - 1",
    "UPDATE files SET footer_bytes = footer_bytes + 1",
    "UPDATE files SET footer_crc = footer_crc + 1",
    "UPDATE files SET segment = segment + 1",
    "DELETE FROM files WHERE no = (SELECT max(no) FROM files)",
    "UPDATE runs SET row = row + 1",
    "UPDATE runs SET rows = rows + 1 WHERE aggregate = 0",
    "UPDATE runs SET aggregate = 99 WHERE aggregate = 0 AND file = (SELECT min(file) FROM runs)",
    "UPDATE runs SET file = 99 WHERE aggregate = 0 AND file = (SELECT min(file) FROM runs)",
    "UPDATE runs SET first_version = first_version + 1",
    "UPDATE runs SET last_version = last_version + 1",
    "UPDATE runs SET first_position = first_position + 1",
    "UPDATE runs SET last_position = last_position + 1",
    "UPDATE runs SET first_timestamp = first_timestamp + 1",
    "UPDATE runs SET last_timestamp = last_timestamp - 1",
    "UPDATE runs SET row = 'x'",
    "DELETE FROM runs WHERE aggregate = 0",
    "UPDATE event_ids SET position = position + 1 WHERE event_id = 'bulk-3'",
    "UPDATE event_ids SET event_id = 'other' WHERE event_id = 'bulk-3'",
    "DELETE FROM event_ids WHERE event_id = 'bulk-3'",
    "INSERT INTO event_ids VALUES ('more', 5)",
)

ONLY_BY_SUMS = ("UPDATE meta SET value = '' WHERE key = 'journal'",)
"""A store that was sealed before it was brought up to date has no journal either."""


@pytest.mark.parametrize("guarded", [True, False], ids=["with sums", "without sums"])
def test_a_hand_in_the_catalog_is_found(folder: Path, guarded: bool):
    """With the sums before anything is read, without them by the proof."""
    image = closed_store(folder / "made")
    for edit in EDITS:
        path = folder / "edited"
        put(image, path)
        connection = sqlite3.connect(path / "catalog.sqlite")
        connection.execute("PRAGMA foreign_keys = OFF")
        changed = connection.execute(edit).rowcount
        connection.commit()
        connection.close()
        assert changed, edit
        if not guarded:
            (path / "catalog.checksums").unlink()
        if guarded or edit not in ONLY_BY_SUMS:
            check_refused(path, edit, reading=guarded)
        shutil.rmtree(path)


def check_refused(path: Path, edit: str, *, reading: bool) -> None:
    try:
        with opened(path, read_only=True) as store:
            if reading:
                with pytest.raises(StoreCorrupt):
                    content_of(store)
            with pytest.raises(EventlabError):
                store.verify()
    except EventlabError:
        return
    except BaseException as error:
        error.add_note(edit)
        raise


def test_event_times_go_back_only_where_their_commit_says_so(folder: Path):
    with opened(folder / "lab") as store:
        store.commit([batch(3, "a", timestamps=[5, 9, 7])], late="accept")
        store.commit([batch(2, "a", timestamps=[8, 9])], late="accept")
        store.seal()
        assert store.verify().ok
    for edit, first in (("clamped = 0", 0), ("clamped = -2", 3), ("clamped = 1", 3)):
        put_back = taken(folder / "lab")
        connection = sqlite3.connect(folder / "lab" / "catalog.sqlite")
        connection.execute(f"UPDATE commits SET {edit} WHERE first_position = {first}")
        connection.commit()
        connection.close()
        (folder / "lab" / "catalog.checksums").unlink()
        with (
            opened(folder / "lab", read_only=True) as store,
            pytest.raises(StoreCorrupt, match="event times") as caught,
        ):
            store.verify()
        assert [(one.first_position, one.stop_position) for one in caught.value.report.damage] == [
            (first, 5 if first else 3)
        ]
        shutil.rmtree(folder / "lab")
        put(put_back, folder / "lab")


def test_a_changed_hand_can_be_accepted(folder: Path):
    """Someone renames a source on purpose: without the sums the store opens, and proves what can be proven."""
    with opened(folder / "lab") as store:
        history(Twin(store))
    connection = sqlite3.connect(folder / "lab" / "catalog.sqlite")
    connection.execute("UPDATE sources SET identity = 'renamed'")
    connection.commit()
    connection.close()
    with opened(folder / "lab") as store, pytest.raises(StoreCorrupt, match=r"page \d+.*remove catalog.checksums"):
        store.verify()
    (folder / "lab" / "catalog.checksums").unlink()
    with opened(folder / "lab") as store:
        store.verify()
        assert store.chunk_receipt("renamed", 0) is not None


def test_a_clock_that_goes_back_harms_nothing(folder: Path):
    moments: Sequence[int] = (1_000, 900, -5, 2**62, 3)
    for moment in moments:
        with EventLog.open(folder / "lab", clock=lambda moment=moment: moment) as store:
            store.commit([batch(1)])
            store.commit([batch(BULK)])
            store.verify()
    with opened(folder / "lab") as store:
        content = content_of(store)
        recorded = [row[8] for row in content]
        assert recorded == sorted(recorded)
        assert store.verify().commits == 2 * len(moments)
