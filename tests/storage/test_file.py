"""A file of a storage reads like a file on disk."""

from __future__ import annotations

import io

import hypothesis.strategies as st
import pytest
from hypothesis import given

from eventlab.storage.file import opened
from eventlab.storage.memory import MemoryStorage

CONTENT = bytes(range(256)) * 20

MOVES = st.one_of(
    st.tuples(st.just("read"), st.integers(-1, 3_000)),
    st.tuples(st.just("seek"), st.integers(0, 6_000)),
    st.tuples(st.just("seek"), st.integers(-5_000, 0), st.just(io.SEEK_END)),
    st.tuples(st.just("tell")),
)


@given(st.lists(MOVES, max_size=20))
def test_it_reads_like_a_file(moves):
    storage, expected = MemoryStorage(), io.BytesIO(CONTENT)
    storage.write("one", [CONTENT])
    with opened(storage, "one") as file:
        for name, *arguments in moves:
            assert getattr(file, name)(*arguments) == getattr(expected, name)(*arguments)


def test_a_missing_file():
    with pytest.raises(FileNotFoundError):
        opened(MemoryStorage(), "none")
