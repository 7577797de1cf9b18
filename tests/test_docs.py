"""The pages under docs/ are true: their code runs, and their tables are those of the code."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

import eventlab as el
from eventlab.fold.declare import operations
from tests.fold.declare.test_operations import EVENTS, answer

DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- operations:begin -->", "<!-- operations:end -->"


def test_the_code_on_the_page_runs(monkeypatch, tmp_path):
    page = (DOCS / "reducers.md").read_text(encoding="utf-8")
    scope: dict[str, Any] = {"__name__": __name__}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "reducers.md", "exec"), scope)
    assert scope["now"].seen == 5_000
    assert scope["rows"]["seen"][-1] == 5_000
    assert "write x * x" in scope["refused"]
    assert (scope["same"], scope["other"]) == (True, True)


def test_the_table_of_operations_is_the_one_that_is_checked():
    page = (DOCS / "reducers.md").read_text(encoding="utf-8")
    shown = page[page.index(BEGIN) + len(BEGIN) : page.index(END)].strip()
    assert shown == "\n".join(operations.table()), "write operations.table() between the markers"


def test_links_lead_somewhere():
    for page in [*DOCS.glob("*.md"), DOCS.parent / "README.md", DOCS.parent / "ARCHITECTURE.md"]:
        for target in re.findall(r"\]\(([^)#:]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


HANDLER = """
    def on_operands(state, event):
        a, b, i, j, p, q = event.a, event.b, event.i, event.j, event.p, event.q
        s, t = "buy", "sell"
        if event.p:
            s = t
"""
KINDS = {"float": ("float", 0.0), "int": ("int", 0), "bool": ("bool", False), "text": ("str", "''")}


@pytest.mark.parametrize("operation", operations.OPERATIONS, ids=lambda operation: operation.name)
def test_every_example_gives_the_same_on_both_paths(operation):
    fields = [KINDS[gives] for _, gives in operation.examples]
    lines = [f"    told_{at}: {kind} = {initial}" for at, (kind, initial) in enumerate(fields)]
    told = [f"        state.told_{at} = {expression}" for at, (expression, _) in enumerate(operation.examples)]
    source = "\n".join(["@el.reducer", "class Told:", *lines, HANDLER.rstrip(), *told])
    scope: dict[str, Any] = {"el": el, "math": math, "__name__": __name__}
    exec(compile(source, "example.py", "exec"), scope)
    found = [[answer(scope["Told"], event, interpret) for event in EVENTS] for interpret in (True, False)]
    assert found[0] == found[1]
    assert any(isinstance(one, list) for one in found[0])
