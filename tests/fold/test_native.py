"""Kernels kept between processes: the same answers without the compiler, whatever became of the files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eventlab.fold import drive, native, walk
from tests.fold.helpers import digests, folded
from tests.fold.kitchen import Tables, Tick

ROOT = Path(__file__).parents[2]
FOLD = """
import sys
import eventlab as el
lab = el.open(":memory:")
fills = [el.PortfolioChange(symbol, 1.5 - k % 4, 100.0 + k, fee=0.25) for k in range(50) for symbol in ("A", "B")]
lab.append("p", fills)
state = lab.state(el.Portfolio, "p", interpret=False)
print(state.digest, "numba" in sys.modules)
"""


def run(folder: Path, code: str = FOLD) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
        env={**os.environ, native.FOLDER: str(folder)},
    )  # fmt: skip
    return done.stdout.split()


def test_a_second_process_needs_no_compiler(tmp_path):
    digest, compiled = run(tmp_path / "new" / "folder")
    assert compiled == "True"
    assert run(tmp_path / "new" / "folder") == [digest, "False"]
    files = sorted((tmp_path / "new" / "folder").iterdir())
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert run(tmp_path / "new" / "folder") == [digest, "True"]  # damaged: made again, and kept
    assert run(tmp_path / "new" / "folder") == [digest, "False"]
    for file in files:
        file.write_bytes(file.read_bytes()[: len(native._MAGIC) + 40])
    assert run(tmp_path / "new" / "folder") == [digest, "True"]
    assert sorted((tmp_path / "new" / "folder").iterdir()) == files  # nothing is left beside them


def test_processes_that_begin_at_once_agree(tmp_path):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", FOLD], cwd=ROOT, stdout=subprocess.PIPE, text=True,
            env={**os.environ, native.FOLDER: str(tmp_path)},
        )
        for _ in range(3)
    ]  # fmt: skip
    said = {process.communicate(timeout=180)[0].split()[0] for process in started}
    assert len(said) == 1
    assert run(tmp_path) == [*said, "False"]


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("no folder")
    monkeypatch.setenv(native.FOLDER, str(file / "kernels"))
    monkeypatch.setattr(drive, "_known", {})
    compiled, plain = (folded(Tables, [[Tick("a")]], interpret=interpret).states for interpret in (False, True))
    assert digests(compiled) == digests(plain)


def test_what_is_kept_is_named_by_all_that_it_was_made_from(monkeypatch):
    float64, int64 = np.dtype(np.float64), np.dtype(np.int64)
    keys = {
        native.key_of(parts, types)
        for parts in (["a"], ["b"], ["a", "b"])
        for types in (("int", float64), ("int", int64), ("int",))
    }
    assert len(keys) == 9
    monkeypatch.setattr(native, "_environment", lambda: ("another processor",))
    assert native.key_of(["a"], ("int",)) not in keys


@pytest.mark.parametrize("content", [b"", b"ELKERN01", b"ELKERN01" + bytes(100), b"something else entirely" * 10])
def test_a_file_that_is_no_kernel_is_none(tmp_path, monkeypatch, content):
    monkeypatch.setenv(native.FOLDER, str(tmp_path))
    (tmp_path / "key").write_bytes(content)
    assert native.kept("key") is None
    assert native.kept("missing") is None


def test_code_that_needs_what_is_not_here_is_not_loaded():
    with pytest.raises(LookupError, match="no_such_function"):
        native.load(native.Code("entry", b"", ["no_such_function"]))


def test_a_kernel_of_no_reducer_is_what_its_python_is():
    rng = np.random.default_rng(4)
    order = native.Function(walk.queue_order)
    counts = np.array([2, 0, 3, 1], np.int64)
    links = rng.integers(0, 9, 40).astype(np.int32)
    arguments = (links, 4, np.array([0, 1, 2, 3], np.int64), counts, np.array([0, 2, 4]), np.array([0, 1, 2]))
    compiled, plain = np.empty(6, np.int64), np.empty(6, np.int64)
    order(*arguments, compiled)
    walk.queue_order(*arguments, plain)
    assert compiled.tolist() == plain.tolist()
