"""A room imports only rooms on lower floors; ARCHITECTURE.md draws the same house."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "eventlab"
BESIDE_LAB = "lab.py's own"

FLOORS = (
    {"errors", "cores", "faces"},
    {"events"},
    {"exchange"},
    {"store", "feeds", "fold", "workloads", "terminal", "progress"},
    {"snapshots", "reducers", BESIDE_LAB},
    {"timetravel"},
    {"plots", "projections"},
    {"experiments"},
    {"lab"},
    {"demo"},
    {"cli"},
    {"__main__"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# What a room may see of those below it, where that is less than everything.
STRANGERS = {("store", "fold"), ("fold", "store"), ("reducers", "store"), ("feeds", "store"), ("plots", "store")}


def room_of(module: str) -> str:
    """The room of ``eventlab.room.file``; the face is named after the package."""
    package, *inside = module.split(".")
    name = inside[0] if inside else package
    return BESIDE_LAB if re.fullmatch(r"_[a-z]+", name) else name


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import of the package's own, also inside functions and for type checkers only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "eventlab")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            if node.module == "eventlab":
                yield from ((node.lineno, f"eventlab.{alias.name}") for alias in node.names)
            elif node.module is not None and node.module.startswith("eventlab."):
                yield node.lineno, node.module


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path):
    here = room_of(".".join(("eventlab", *path.relative_to(PACKAGE).with_suffix("").parts)))
    for line, module in imported(path):
        there = room_of(module)
        if there == here or (there == "eventlab" and here == "cli"):  # which tells its version
            continue
        where = f"{path.relative_to(ROOT)}:{line}: {here} imports {module}"
        assert FLOOR_OF[there] < FLOOR_OF[here], where
        assert (here, there) not in STRANGERS, where


def test_every_room_has_its_floor():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    files = {room_of(f"eventlab.{path.stem}") for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    assert rooms | files == set(FLOOR_OF)


def test_the_drawn_house_has_the_same_floors():
    table = re.findall(r"^\| (`.*?) \|", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.MULTILINE)
    drawn = [set(re.findall(r"`(\w+)(?:/|\.py)`", cell)) for cell in table]
    wanted = [rooms - {BESIDE_LAB, "__main__"} for rooms in reversed(FLOORS)]
    assert drawn == [rooms for rooms in wanted if rooms]
