"""A room imports only rooms on lower floors, and no imports go in a circle; ARCHITECTURE.md has the same floors."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "eventlab"

FLOORS = (
    {"errors"},
    {"events", "storage"},
    {"runtime", "interchange"},
    {"store"},
    {"feeds"},
    {"fold"},
    {"reducers", "snapshots"},
    {"timetravel"},
    {"plots", "projections"},
    {"lab"},
    {"experiments", "testing"},
    {"demo"},
    {"cli"},
    {"__main__"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# The store's face: what rooms above it may import. `lab/open.py` alone chooses the built-in store.
FACE_OF_STORE = {("eventlab", "store", name) for name in ("api", "blocks", "names", "types")}
CHOOSES_THE_STORE = ("eventlab", "lab", "open")
# What a room may not see of those below it.
STRANGERS = {("fold", "store"), ("reducers", "store"), ("plots", "store")}
MOST_FILES = 13


def imported(path: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and module path of every import of the package, also inside functions and for type checkers only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in found:
            parts = tuple(name.split("."))
            if parts[0] == "eventlab":
                yield node.lineno, parts if is_module(parts) else parts[:-1]


def is_module(parts: tuple[str, ...]) -> bool:
    path = ROOT.joinpath(*parts)
    return path.is_dir() or path.with_suffix(".py").exists()


def module_of(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path):
    here = module_of(path)[1]
    for line, module in imported(path):
        if module == ("eventlab",):
            assert here == "cli", f"{path.relative_to(ROOT)}:{line}: only the command line needs the package's version"
            continue
        there = module[1]
        where = f"{path.relative_to(ROOT)}:{line}: {here} imports {'.'.join(module)}"
        assert there == here or FLOOR_OF[there] < FLOOR_OF[here], where
        assert (here, there) not in STRANGERS, where


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_other_rooms_know_the_store_by_its_interface(path: Path):
    if module_of(path)[1] == "store" or module_of(path) == CHOOSES_THE_STORE:
        return
    for line, module in imported(path):
        if module[:2] == ("eventlab", "store"):
            known = module in FACE_OF_STORE or module[:3] == ("eventlab", "store", "disk")  # how files are changed
            assert known, f"{path.relative_to(ROOT)}:{line}: imports {'.'.join(module)}"


def test_nothing_else_imports_the_suite():
    for path in modules():
        if module_of(path)[1] != "testing":
            assert not any(module[:2] == ("eventlab", "testing") for _, module in imported(path)), path


def test_the_suite_knows_the_interface_alone():
    """A store from elsewhere takes no other room with it than the suite needs."""
    for path in (PACKAGE / "testing").glob("*.py"):
        for line, module in imported(path):
            assert module[1] in {"errors", "events", "storage", "store", "testing"}, f"{path.name}:{line}"


def arrows() -> Mapping[tuple[str, ...], dict[str, set[str]]]:
    """By folder: which of its files and subfolders import which others. Faces load lazily and do not count."""
    found: dict[tuple[str, ...], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path in modules():
        if path.name == "__init__.py":
            continue
        here = module_of(path)
        for _, module in imported(path):
            shared = 0
            while shared < min(len(here), len(module)) and here[shared] == module[shared]:
                shared += 1
            if shared < min(len(here), len(module)):
                found[here[:shared]][here[shared]].add(module[shared])
    return found


def test_no_imports_go_in_a_circle():
    for folder, graph in arrows().items():
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            pytest.fail(f"{'/'.join(folder)}: {' -> '.join(error.args[1])}")


def test_no_folder_is_a_heap():
    for folder in {path.parent for path in modules()}:
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= MOST_FILES, f"{folder.relative_to(ROOT)} has {len(files)} files"


def test_every_room_has_its_floor():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    files = {path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    assert rooms | files == set(FLOOR_OF)


def test_the_drawn_house_has_the_same_floors():
    table = re.findall(r"^\| (`.*?) \|", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.MULTILINE)
    drawn = [set(re.findall(r"`(\w+)(?:/|\.py)`", cell)) for cell in table]
    wanted = [rooms - {"__main__"} for rooms in reversed(FLOORS)]
    assert drawn == [rooms for rooms in wanted if rooms]


# Public names that stand in two namespaces on purpose.
SHARED_NAMES = {
    "Exponential": "el.snapshots.Exponential is a policy, el.workloads.Exponential a distribution of reads",
}
MOST_LINES = 500
LONG_FILES = {"lab/lab.py"}  # the facade: one method a public name, most of it docstrings


def test_a_class_name_stands_once():
    places: dict[str, list[str]] = defaultdict(list)
    for path in modules():
        if not path.stem.endswith("_pb2"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    places[node.name.lstrip("_")].append(str(path.relative_to(PACKAGE)))
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert twice.keys() == SHARED_NAMES.keys(), twice


def test_no_file_is_long():
    for path in modules():
        name = path.relative_to(PACKAGE).as_posix()
        if name not in LONG_FILES and not path.stem.endswith("_pb2"):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            assert lines <= MOST_LINES, f"{name} has {lines} lines"
