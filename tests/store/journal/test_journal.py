"""The journal alone: what its bytes may suffer, and what a reader may then say."""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given

from eventlab.errors import StoreCorrupt, StoreFull
from eventlab.store.journal.journal import HEAD, Journal, Lost, Record, empty
from eventlab.store.journal.journal_file import MemoryFile

STORE = str(uuid.UUID(int=7))
END = slice(64, 92)
FIRST = 128


class Disk(MemoryFile):
    """A file in memory whose operations can be made to fail, and that remembers what was synced."""

    def __init__(self, content: bytes = b"") -> None:
        super().__init__()
        self._content = bytearray(content or empty(STORE))
        self.synced = bytes(self._content)
        self.syncs = 0
        self.failing: list[str] = []

    def _maybe_fail(self, what: str) -> None:
        if what in self.failing:
            self.failing.remove(what)
            raise OSError(5, what)

    def write_at(self, content: bytes, offset: int, *, synced: bool = False) -> None:
        self._maybe_fail("publish" if offset == END.start else "write")
        super().write_at(content, offset)
        if synced:
            self.sync()

    def allocate(self, offset: int, length: int) -> None:
        self._maybe_fail("allocate")
        super().allocate(offset, length)

    def sync(self) -> None:
        self._maybe_fail("sync")
        self.syncs += 1
        self.synced = self.content()

    def content(self) -> bytes:
        return bytes(self._content)


def records_of(sizes: Sequence[int], *, salt: str = "", start: int = 0) -> list[Record]:
    """Commits of one event each, with blobs of these sizes."""
    made = []
    for index, size in enumerate(sizes, start):
        seed = hashlib.sha256(f"{index}{salt}{size}".encode())
        extras = {"new": [f"ä{index}"], "from": index} if size % 2 else {}
        blob = (seed.digest() * (size // 32 + 1))[:size]
        heads = HEAD.pack(index, 1, index, 1_000 + index)
        made.append(Record(index, 1, 0, 10**9 + index, 1, seed.digest(), heads, extras, blob))
    return made


def plain(record: Record) -> tuple[object, ...]:
    return tuple(getattr(record, name) for name in Record.__slots__)


def opened(content: bytes | Disk, *, synced: bool = True) -> Journal:
    return Journal(content if isinstance(content, Disk) else Disk(content), STORE, "here", synced=synced)


def written(groups: Sequence[Sequence[Record]], *, synced: bool = True) -> Disk:
    file = Disk()
    journal = opened(file, synced=synced)
    assert journal.read() == []
    for group in groups:
        journal.append(group)
    return file


def seen(content: bytes | Disk, *, beyond: bool = False) -> list[Record | Lost]:
    return opened(content).read(beyond=beyond)


SIZES = st.lists(st.integers(1, 300), min_size=1, max_size=8)


@given(SIZES, st.sets(st.integers(1, 7)), st.booleans())
def test_records_come_back_however_they_were_grouped(sizes: list[int], cuts: set[int], synced: bool):
    records = records_of(sizes)
    bounds = [0, *sorted(cut for cut in cuts if cut < len(records)), len(records)]
    file = Disk()
    writing, reading = opened(file, synced=synced), opened(file)
    writing.read()
    found: list[Record | Lost] = []
    for start, stop in itertools.pairwise(bounds):
        writing.append(records[start:stop])
        assert reading.has_more()
        found += reading.read()
        assert not reading.has_more()
    for again in (found, seen(file), seen(file, beyond=True), seen(writing.content())):
        assert [plain(record) for record in again] == [plain(record) for record in records]
    assert file.syncs == (len(bounds) - 1 if synced else 0)


def check(found: list[Record | Lost], records: list[Record]) -> tuple[int, int]:
    """Nothing is made up and nothing is out of order; returns how many are intact, and how many places are named."""
    expected = {record.first_position: plain(record) for record in records}
    position, intact, named = -1, 0, 0
    for one in found:
        if isinstance(one, Lost):
            named += 1
            continue
        assert one.first_position > position
        position = one.first_position
        if one.blob is None:
            named += 1
            assert plain(one)[:-1] == expected[position][:-1]
        else:
            intact += 1
            assert plain(one) == expected[position]
    return intact, named


@pytest.mark.parametrize("beyond", [False, True])
def test_every_changed_byte_is_a_named_loss_or_no_loss(beyond: bool):
    records = records_of([5, 40, 8, 70, 33])
    file = written([records[:2], records[2:3], records[3:]])
    journal = opened(file)
    journal.read()
    whole = journal.content()
    for at in range(len(whole)):
        for mask in (0xFF, 0x01):
            changed = bytearray(whole)
            changed[at] ^= mask
            damaged = opened(bytes(changed))
            found = damaged.read(beyond=beyond)
            intact, named = check(found, records)
            if at < FIRST:
                assert (intact, named) == (len(records), 0)
                assert (damaged.head_damage is not None) == (at < 60 or at in range(*END.indices(FIRST)))
            else:
                assert intact >= len(records) - 1
                assert intact == len(records) or named == 1


@pytest.mark.parametrize("beyond", [False, True])
def test_every_truncation_keeps_what_is_whole_and_names_the_rest(beyond: bool):
    records = records_of([5, 40, 8, 70, 33])
    file = written([records])
    journal = opened(file)
    journal.read()
    whole = journal.content()
    sizes = [len(record.packed(bytes(8))) for record in records]
    ends = [FIRST + sum(sizes[: count + 1]) for count in range(len(records))]
    for length in range(FIRST, len(whole)):
        found = seen(whole[:length], beyond=beyond)
        intact, named = check(found, records)
        assert intact >= sum(end <= length for end in ends)
        assert named or intact == len(records)
        if named:
            assert isinstance(found[-1], Lost)
            assert found[-1].stop_position == len(records)


@given(SIZES, st.data())
def test_after_a_power_failure_the_acknowledged_are_there_and_nothing_half(sizes: list[int], data: st.DataObject):
    """The end that lies on disk is an older one, and of the last append, never acknowledged, only parts arrived."""
    records = records_of([*sizes, 150, 90])
    file = Disk()
    journal = opened(file)
    journal.read()
    for record in records[:-2]:
        journal.append([record])
    older = data.draw(st.sampled_from([file.synced[END], file.content()[END]]))
    journal.append(records[-2:])
    torn = bytearray(file.content())
    start = _offset_after(records[:-2])
    keep = data.draw(st.integers(0, len(torn) - start))
    torn[start + keep :] = bytes(len(torn) - start - keep)
    hole = data.draw(st.integers(0, keep))
    if data.draw(st.booleans()):  # pages arrive in any order
        torn[start : start + hole] = bytes(hole)
    torn[END] = older
    reopened = opened(bytes(torn))
    found = reopened.read(beyond=True)
    assert [plain(record) for record in found] == [plain(record) for record in records[: len(found)]]
    assert len(found) >= len(records) - 2
    reopened.recover()
    following = records_of([17], salt="next", start=len(found))
    reopened.append(following)
    again = seen(reopened.content(), beyond=True)
    assert [plain(record) for record in again] == [plain(r) for r in (*records[: len(found)], *following)]


def _offset_after(records: Sequence[Record]) -> int:
    return FIRST + sum(len(record.packed(bytes(8))) for record in records)


def test_a_reader_stops_at_the_published_end():
    records = records_of([20, 30])
    file = written([records[:1]])
    before = file.content()[END]
    journal = opened(file)
    journal.read()
    journal.append(records[1:])
    file._content[END] = before
    assert [plain(r) for r in seen(file)] == [plain(records[0])]
    assert [plain(r) for r in seen(file, beyond=True)] == [plain(r) for r in records]


@pytest.mark.parametrize("failing", [["write"], ["sync"], ["publish"], ["allocate"]])
@pytest.mark.parametrize("same", [True, False], ids=["the same digests", "other digests"])
def test_nothing_of_a_failed_append_remains_whatever_follows_it(failing: list[str], same: bool):
    """A clock that was put back gives a commit that is tried again the digest it had."""
    first, second, third = records_of([40, 40, 40])
    file = written([])
    journal = opened(file)
    journal.read()
    file.failing = list(failing)
    with pytest.raises(OSError, match=failing[0]):
        journal.append([first, second, third])
    assert seen(file, beyond=True) == []
    again = first if same else records_of([40], salt="again")[0]
    journal.append([again])
    for beyond in (False, True):
        assert [plain(record) for record in seen(file, beyond=beyond)] == [plain(again)]
    assert [plain(record) for record in seen(file.synced, beyond=True)] == [plain(again)]


def test_nothing_follows_even_where_the_failed_append_could_not_be_undone():
    first, second, third = records_of([40, 40, 40])
    file = written([])
    journal = opened(file)
    journal.read()
    file.failing = ["sync", "sync"]
    with pytest.raises(StoreFull, match="undoing"):
        journal.append([first, second, third])
    following = opened(file)
    assert following.read(beyond=True) == []
    following.append([first])
    assert [plain(record) for record in seen(file, beyond=True)] == [plain(first)]


def test_an_interrupt_after_publishing_leaves_the_record_to_those_who_read_it():
    record = records_of([40])[0]
    file = written([])
    journal = opened(file)
    journal.read()
    plainly = file.write_at

    def interrupted(content: bytes, offset: int, *, synced: bool = False) -> None:
        plainly(content, offset, synced=synced)
        if offset == END.start:
            raise KeyboardInterrupt

    file.write_at = interrupted
    with pytest.raises(KeyboardInterrupt):
        journal.append([record])
    assert [plain(one) for one in seen(file)] == [plain(record)]


@given(SIZES, st.data())
def test_relaxed_durability_loses_the_last_ones_only(sizes: list[int], data: st.DataObject):
    records = records_of([*sizes, 60, 60])
    settled = data.draw(st.integers(0, len(records)))
    file = Disk()
    journal = opened(file, synced=False)
    journal.read()
    for record in records[:settled]:
        journal.append([record])
    journal.settle()
    for record in records[settled:]:
        journal.append([record])
    content = bytearray(file.content())
    start = _offset_after(records[:settled])
    hole = data.draw(st.integers(start, len(content) - 1))
    size = data.draw(st.integers(1, 200))
    content[hole : hole + size] = bytes(len(content[hole : hole + size]))
    found = seen(bytes(content), beyond=True)
    assert [plain(record) for record in found] == [plain(record) for record in records[: len(found)]]
    assert len(found) >= settled
    assert file.syncs == (1 if settled else 0)


def test_what_was_settled_is_named_when_it_is_damaged():
    records = records_of([40, 40, 40])
    file = Disk()
    journal = opened(file, synced=False)
    journal.read()
    journal.append(records[:2])
    journal.settle()
    journal.append(records[2:])  # does not take back that the others were synced
    content = bytearray(file.content())
    content[_offset_after(records[:1]) + 20] ^= 1
    found = seen(bytes(content))
    assert check(found, records) == (2, 1)


def test_a_damaged_end_is_written_anew_by_who_recovers():
    records = records_of([40, 41])
    file = written([records])
    file._content[70] ^= 0xFF
    journal = opened(file)
    assert [plain(record) for record in journal.read()] == [plain(record) for record in records]
    assert journal.head_damage is not None
    journal.recover()
    assert opened(file).read()
    assert opened(file).head_damage is None


def test_room_that_another_process_gave_back_is_no_obstacle():
    first, second, third = records_of([40, 300, 40])
    file = written([])
    mine, other = opened(file), opened(file)
    mine.read()
    mine.append([first])
    other.read()
    other.trim()
    mine.append([second])
    other.read()
    other.append([third])
    assert [plain(record) for record in mine.read()] == [plain(third)]
    assert [plain(record) for record in seen(file, beyond=True)] == [plain(r) for r in (first, second, third)]


def test_a_record_past_the_reserved_room():
    record = records_of([3_000_000])[0]
    file = written([[record]])
    assert [plain(one) for one in seen(file)] == [plain(record)]


def test_what_does_not_belong_here_is_said():
    with pytest.raises(StoreCorrupt, match="belongs to another store"):
        Journal(Disk(empty(str(uuid.UUID(int=8)))), STORE, "here", synced=True)
    file = written([records_of([10])])
    journal = opened(file)
    journal.read()
    file._content[:] = empty(STORE)
    with pytest.raises(StoreCorrupt, match="became shorter"):
        journal.read()
