"""Row groups from memory are those of the file, whatever was read before and however little is kept."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlab.store.segments import row_group_cache as decoded
from eventlab.store.segments.row_group_cache import RowGroupCache

ROWS = (3, 5, 2, 4)
BEGINS = np.cumsum([0, *ROWS])
PRICE = np.arange(sum(ROWS)) * 0.5
SYMBOL = pa.array([f"s{row % 3}" for row in range(sum(ROWS))])
FILE = {"price": PRICE, "symbol": SYMBOL}


def whole(name, groups):
    """A column of some row groups, one after the other, as a list."""
    rows = [row for group in groups for row in range(BEGINS[group], BEGINS[group + 1])]
    column = FILE[name].tolist()
    return [column[row] for row in rows]


@st.composite
def reads(draw):
    first = draw(st.integers(0, len(ROWS) - 1))
    groups = list(range(first, draw(st.integers(first + 1, min(first + 2, len(ROWS))))))
    count = sum(ROWS[group] for group in groups)
    cuts = sorted(draw(st.lists(st.integers(0, count), min_size=2, max_size=6).filter(lambda cuts: len(cuts) % 2 == 0)))
    pieces = [(low, high) for low, high in zip(cuts[::2], cuts[1::2], strict=True) if low < high]
    names = draw(st.lists(st.sampled_from(list(FILE)), min_size=1, unique=True))
    return draw(st.sampled_from(["one", "two"])), groups, names, draw(st.sampled_from([None, pieces or None]))


@given(st.lists(reads(), max_size=12), st.sampled_from([0, 60, 1 << 20]))
def test_columns_are_those_of_the_file(asked, room):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoded, "MOST_BYTES", room)
        kept = RowGroupCache()
        for file, groups, names, pieces in asked:

            def decode(missing, groups=groups):
                assert missing
                assert set(missing) <= set(groups)
                rows = np.concatenate([np.arange(BEGINS[group], BEGINS[group + 1]) for group in missing])
                return {"price": PRICE[rows], "symbol": SYMBOL.take(pa.array(rows))}

            found = kept.columns(file, groups, names, pieces, decode, BEGINS)
            for name in names:
                expected = whole(name, groups)
                if pieces is not None:
                    expected = [value for low, high in pieces for value in expected[low:high]]
                assert found[name].tolist() == expected


def test_a_group_is_decoded_once_while_there_is_room():
    kept, asked = RowGroupCache(), []

    def decode(missing):
        asked.append(list(missing))
        rows = np.concatenate([np.arange(BEGINS[group], BEGINS[group + 1]) for group in missing])
        return {"price": PRICE[rows]}

    for groups in ([0], [0, 1], [0, 1], [1]):
        kept.columns("one", groups, ["price"], None, decode, BEGINS)
    assert asked == [[0], [1]]
    kept.columns("two", [1], ["price"], None, decode, BEGINS)
    assert asked == [[0], [1], [1]]


def test_what_is_kept_cannot_be_written_to():
    found = RowGroupCache().columns("one", [0], ["price"], None, lambda _: {"price": PRICE[:3].copy()}, BEGINS)
    with pytest.raises(ValueError, match="read-only"):
        found["price"][0] = 1.0
