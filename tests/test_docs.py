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

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
BEGIN, END = "<!-- operations:begin -->", "<!-- operations:end -->"


def run(page: Path) -> dict[str, Any]:
    """The names that a page's code leaves, run from top to bottom."""
    scope: dict[str, Any] = {"__name__": __name__}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, page.name, "exec"), scope)
    return scope


def test_the_code_about_reducers_runs():
    scope = run(DOCS / "reducers.md")
    assert scope["now"].seen == 5_000
    assert scope["rows"]["seen"][-1] == 5_000
    assert "write x * x" in scope["refused"]
    assert (scope["same"], scope["other"]) == (True, True)


def test_the_code_for_contributors_runs():
    scope = run(ROOT / "CONTRIBUTING.md")
    assert scope["stored"]["volume"].to_list() == [0.5]
    assert scope["made"] == [1, 4, 9, 16]


def test_commands_for_contributors_name_what_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    targets = re.findall(r"^make ([\w-]+)", text, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [name for name in targets if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []
    paths = re.findall(r"(?:eventlab|tests|docs|benchmarks)/[\w./-]*\w", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_table_of_operations_is_the_one_in_the_code():
    page = (DOCS / "reducers.md").read_text(encoding="utf-8")
    shown = page[page.index(BEGIN) + len(BEGIN) : page.index(END)].strip()
    assert shown == "\n".join(operations.table()), "write operations.table() between the markers"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_every_decision_is_in_the_index():
    folder = DOCS / "decisions"
    listed = re.findall(r"^- \[(\d+)\. (.+)\]\((.+)\)$", (folder / "README.md").read_text("utf-8"), re.MULTILINE)
    pages = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert [name for _, _, name in listed] == pages
    for number, title, name in listed:
        assert name.startswith(f"{int(number):04}-")
        assert (folder / name).read_text("utf-8").startswith(f"# {number}. {title}\n")


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
    lines = [f"    result_{at}: {kind} = {initial}" for at, (kind, initial) in enumerate(fields)]
    results = [f"        state.result_{at} = {expression}" for at, (expression, _) in enumerate(operation.examples)]
    source = "\n".join(["@el.reducer", "class Results:", *lines, HANDLER.rstrip(), *results])
    scope: dict[str, Any] = {"el": el, "math": math, "__name__": __name__}
    exec(compile(source, "example.py", "exec"), scope)
    found = [[answer(scope["Results"], event, interpret) for event in EVENTS] for interpret in (True, False)]
    assert found[0] == found[1]
    assert any(isinstance(one, list) for one in found[0])
