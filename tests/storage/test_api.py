"""Ranges are read with as few calls as the gap allows."""

from __future__ import annotations

import pytest

from eventlab.storage.api import read_joined

CONTENT = bytes(range(100))


@pytest.mark.parametrize(
    ("gap", "calls"),
    [
        (0, [(10, 20), (20, 25), (27, 30), (60, 70), (15, 22)]),
        (1, [(10, 25), (27, 30), (60, 70)]),
        (3, [(10, 30), (60, 70)]),
        (31, [(10, 70)]),
    ],
)
def test_neighbours_are_joined_where_it_pays(gap: int, calls: list[tuple[int, int]]):
    made = []

    def read(start: int, stop: int) -> memoryview:
        made.append((start, stop))
        return memoryview(CONTENT)[start:stop]

    wanted = [(10, 20), (20, 25), (27, 30), (60, 70), (15, 22)]
    assert [bytes(part) for part in read_joined(wanted, gap, read)] == [CONTENT[a:b] for a, b in wanted]
    assert made == calls
