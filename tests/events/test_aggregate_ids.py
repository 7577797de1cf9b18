from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from eventlab.events.aggregate_ids import Template


@given(st.lists(st.text(min_size=1), min_size=1), st.text().filter(lambda text: not set(text) & set("{}")))
def test_filling_is_plain_text_work_row_by_row_and_one_by_one(symbols, prefix):
    template = Template.parse(f"{prefix}{{symbol}}/x")
    column = template.column(pl.DataFrame({"symbol": symbols}))
    assert column.to_list() == [f"{prefix}{symbol}/x" for symbol in symbols]
    assert column.to_list() == [template.fill({"symbol": symbol}) for symbol in symbols]


def test_a_template_without_placeholders_is_one_aggregate():
    column = Template.parse("all").column(pl.DataFrame({"symbol": ["A", "B"]}))
    assert (column.name, column.to_list()) == ("aggregate_id", ["all", "all"])
