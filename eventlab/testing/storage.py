"""The conformance suite of a storage: subclass it in a test file and give it a `storage` fixture."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from eventlab.storage.api import Buffer, Storage, SupportsArrowFiles

Opener = Callable[[], Storage]
"""Opens the same storage again. It can be pickled, so that another process can call it."""

Crashes = Callable[[Storage, Callable[[Storage], None]], Iterator[Storage]]
"""Runs a change once for each of its steps, stopped there, and gives the storage that remains each time."""

_FORBIDDEN = ("", ".", "..", "/", "/etc/passwd", "a/b", "../a", "a/", "/a", "a\0b", "\0")
_CALLERS = 8


def content_of(storage: Storage) -> dict[str, bytes]:
    """All files of a storage."""
    return {name: bytes(storage.read(name)) for name in storage.list()}


def _interrupted(buffers: Iterable[Buffer]) -> Iterator[Buffer]:
    yield from buffers
    raise InterruptedError("the content ends here")


class StorageSuite:
    """What every storage does."""

    @pytest.fixture
    def storage(self) -> Storage:
        """An empty storage."""
        raise NotImplementedError

    # -- whole files

    def test_what_is_written_is_read(self, storage: Storage) -> None:
        parts: list[Buffer] = [b"ab", bytearray(b"cd"), memoryview(b"ef"), pa.py_buffer(b"gh"), b""]
        storage.write("one", parts)
        storage.write("empty", [])
        storage.create("two", iter([pa.py_buffer(b"xyz")]))
        assert content_of(storage) == {"empty": b"", "one": b"abcdefgh", "two": b"xyz"}
        storage.write("one", [b"new"])
        assert bytes(storage.read("one")) == b"new"

    def test_arrow_reads_the_same_files(self, storage: Storage) -> None:
        if not isinstance(storage, SupportsArrowFiles):
            pytest.skip("Arrow reads this storage through `ranges`")
        storage.write("one", [b"abc", b"defg"])
        with storage.arrow_file("one") as file:
            storage.remove("one")
            assert (file.size(), file.read_at(3, 2), file.read_at(9, 5)) == (7, b"cde", b"fg")
        with pytest.raises(FileNotFoundError):
            storage.arrow_file("one")
        for name in _FORBIDDEN:
            with pytest.raises(ValueError, match="name"):
                storage.arrow_file(name)

    def test_a_caller_may_reuse_its_buffer(self, storage: Storage) -> None:
        buffer = bytearray(b"before")
        storage.write("one", [buffer])
        buffer[:] = b"after!"
        assert bytes(storage.read("one")) == b"before"

    def test_content_cannot_be_changed_by_readers(self, storage: Storage) -> None:
        storage.write("one", [bytearray(b"abc")])
        (part,) = storage.ranges("one", [(0, 2)])
        assert storage.read("one").readonly
        assert part.readonly

    def test_sizes_and_prefixes(self, storage: Storage) -> None:
        for name, size in (("b-1", 3), ("a-2", 0), ("a-1", 70_000), ("a", 1)):
            storage.write(name, [bytes(size)])
        assert list(storage.list().items()) == [("a", 1), ("a-1", 70_000), ("a-2", 0), ("b-1", 3)]
        assert dict(storage.list("a-")) == {"a-1": 70_000, "a-2": 0}
        assert dict(storage.list("b-1")) == {"b-1": 3}
        assert not storage.list("c")

    def test_missing_files(self, storage: Storage) -> None:
        assert not storage.list()
        storage.remove("none")
        storage.sync()
        for read in (storage.read, lambda name: list(storage.ranges(name, [(0, 1)]))):
            with pytest.raises(FileNotFoundError):
                read("none")

    def test_a_removed_file_is_gone(self, storage: Storage) -> None:
        storage.write("one", [b"x"])
        storage.write("two", [b"y"])
        storage.remove("one")
        storage.sync()
        assert content_of(storage) == {"two": b"y"}
        storage.create("one", [b"z"])
        assert content_of(storage) == {"one": b"z", "two": b"y"}

    @pytest.mark.parametrize("name", _FORBIDDEN)
    def test_names_that_no_file_may_have(self, storage: Storage, name: str) -> None:
        for call in (
            storage.read, storage.remove, lambda bad: list(storage.ranges(bad, [(0, 1)])),
            lambda bad: storage.write(bad, [b"x"]), lambda bad: storage.create(bad, [b"x"]),
        ):  # fmt: skip
            with pytest.raises(ValueError, match="name"):
                call(name)
        assert not storage.list()

    @pytest.mark.parametrize(
        "name", ["a", "...", "a..b", ".hidden", "with space", "\u00fc\u2126", "-", "x" * 200, "a\\b"]
    )
    def test_names_that_a_file_may_have(self, storage: Storage, name: str) -> None:
        storage.write(name, [b"x"])
        assert content_of(storage) == {name: b"x"}

    # -- ranges

    # One storage for all examples, each of which replaces the file; and a test for every subclass.
    @settings(
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
        max_examples=50,
        deadline=None,
    )
    @given(
        size=st.integers(0, 300),
        wanted=st.lists(st.tuples(st.integers(0, 320), st.integers(0, 320)), max_size=12),
        gap=st.sampled_from([None, 0, 1, 40, 1_000]),
    )
    def test_ranges_are_slices(
        self, storage: Storage, size: int, wanted: Sequence[tuple[int, int]], gap: int | None
    ) -> None:
        """Also where ranges overlap, touch, are empty or end after the file, and whatever gap is read over."""
        content = bytes(number % 251 for number in range(size))
        storage.write("one", [content])
        ordered = [(min(pair), max(pair)) for pair in wanted]
        if gap is not None:
            storage.join_gap = gap
        assert [bytes(part) for part in storage.ranges("one", ordered)] == [content[a:b] for a, b in ordered]

    # -- all or nothing

    def test_content_that_fails_changes_nothing(self, storage: Storage) -> None:
        storage.write("old", [b"before"])
        for write in (storage.write, storage.create):
            for name in ("old", "new"):
                with pytest.raises((InterruptedError, FileExistsError)):
                    write(name, _interrupted([b"half of it"]))
                assert content_of(storage) == {"old": b"before"}

    def test_nothing_is_seen_of_a_file_that_is_being_written(self, storage: Storage) -> None:
        storage.write("old", [b"before"])

        def watched() -> Iterator[Buffer]:
            for _ in range(3):
                yield b"part"
                assert content_of(storage) == {"old": b"before"}

        storage.write("old", watched())
        assert content_of(storage) == {"old": b"partpartpart"}
        storage.write("old", [b"before"])
        storage.create("new", watched())
        assert content_of(storage) == {"new": b"partpartpart", "old": b"before"}

    def test_create_keeps_what_is_there(self, storage: Storage) -> None:
        storage.create("one", [b"first"])
        with pytest.raises(FileExistsError):
            storage.create("one", [b"second"])
        assert content_of(storage) == {"one": b"first"}

    def test_one_of_several_threads_creates_a_file(self, storage: Storage) -> None:
        for turn in range(5):
            won: list[int] = []
            start = threading.Barrier(_CALLERS)

            def create(number: int, turn: int = turn, won: list[int] = won, start: Any = start) -> None:
                start.wait()
                try:
                    storage.create(f"{turn}", [bytes([number]) * 1_000] * 3)
                except FileExistsError:
                    return
                won.append(number)

            threads = [threading.Thread(target=create, args=(number,)) for number in range(_CALLERS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(won) == 1
            assert bytes(storage.read(f"{turn}")) == bytes([won[0]]) * 3_000

    def test_readers_see_one_version_of_a_file_that_is_replaced(self, storage: Storage) -> None:
        versions = [bytes([number]) * 50_000 for number in range(20)]
        storage.write("one", [versions[0]])
        done = threading.Event()

        def replace() -> None:
            for version in versions:
                storage.write("one", [version[:20_000], version[20_000:]])
            done.set()

        thread = threading.Thread(target=replace)
        thread.start()
        while not done.is_set():
            assert bytes(storage.read("one")) in versions
            assert b"".join(storage.ranges("one", [(0, 10), (10, 50_000)])) in versions
        thread.join()

    def test_sweeping_keeps_files(self, storage: Storage) -> None:
        storage.write("one", [b"x"])
        with pytest.raises(InterruptedError):
            storage.write("two", _interrupted([b"y"]))
        storage.sweep()
        assert content_of(storage) == {"one": b"x"}
        assert not storage.sweep()


class SharedStorageSuite(StorageSuite):
    """What a storage does that other processes open too."""

    @pytest.fixture
    def opener(self, storage: Storage) -> Opener:
        """Opens `storage` in another process."""
        raise NotImplementedError

    def test_another_process_reads_what_was_written(self, storage: Storage, opener: Opener) -> None:
        storage.write("one", [b"abc"])
        storage.sync()
        assert content_of(opener()) == {"one": b"abc"}
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(_content_elsewhere, (opener,)) == {"one": b"abc"}

    def test_one_of_several_processes_creates_a_file(self, storage: Storage, opener: Opener) -> None:
        with multiprocessing.get_context("spawn").Pool(3) as pool:
            found = pool.starmap(_create_elsewhere, [(opener, number) for number in range(3)], chunksize=1)
        assert len(storage.list()) == 20
        for turn in range(20):
            winners = [number for number, won in enumerate(found) if turn in won]
            assert len(winners) == 1
            assert bytes(storage.read(f"{turn}")) == bytes([winners[0]]) * 100


class CrashSuite(StorageSuite):
    """What a storage keeps when its process ends in the middle of a change."""

    @pytest.fixture
    def crashes(self) -> Crashes:
        """See `Crashes`. Every call of it begins with the files that the storage has."""
        raise NotImplementedError

    @pytest.mark.parametrize("method", ["write", "create"])
    @pytest.mark.parametrize("name", ["old", "new"])
    def test_a_file_is_old_or_new(self, storage: Storage, crashes: Crashes, method: str, name: str) -> None:
        storage.write("old", [b"before"])
        storage.sync()

        def change(crashing: Storage) -> None:
            try:
                getattr(crashing, method)(name, [b"a" * 1_000, b"b" * 1_000])
            except FileExistsError:
                return
            crashing.sync()

        before = {"old": b"before"}
        allowed = (
            [before] if (method, name) == ("create", "old") else [before, before | {name: b"a" * 1_000 + b"b" * 1_000}]
        )
        seen = 0
        for left in crashes(storage, change):
            seen += 1
            assert content_of(left) in allowed
            left.sweep()
            assert content_of(left) in allowed
            assert not left.sweep()
            left.write(name, [b"again"])
            assert bytes(left.read(name)) == b"again"
        assert seen > 2

    def test_a_file_is_there_or_removed(self, storage: Storage, crashes: Crashes) -> None:
        storage.write("old", [b"before"])
        storage.sync()
        for left in crashes(storage, lambda crashing: crashing.remove("old")):
            assert content_of(left) in ({"old": b"before"}, {})


def _content_elsewhere(opener: Opener) -> dict[str, bytes]:
    return content_of(opener())


def _create_elsewhere(opener: Opener, number: int) -> set[int]:
    """The files that this process created of 20 that all create."""
    storage, won = opener(), set()
    for turn in range(20):
        try:
            storage.create(f"{turn}", [bytes([number]) * 100])
        except FileExistsError:
            continue
        won.add(turn)
    return won
