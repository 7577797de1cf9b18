"""Kernels kept between processes: the same answers without the compiler, whatever became of the files."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eventlab.fold import fold as drive
from eventlab.fold.native import cache
from eventlab.fold.native import call as native
from eventlab.fold.native import order_kernels as walk
from eventlab.fold.native.function import Function
from tests.fold.helpers import digests, folded
from tests.fold.kitchen import Tables, Tick

ROOT = Path(__file__).parents[3]
FOLD = """
import sys
import eventlab as el

@el.reducer
class Lots:
    lots = el.Queue("symbol", quantity=float)

    def on_portfolio_change(state, event):
        state.lots.push(event.symbol).quantity = event.quantity

lab = el.open(":memory:")
lab.append("p", [el.PortfolioChange(symbol, 1.5 - k % 4, 100.0) for k in range(50) for symbol in ("A", "B")])
print(lab.state(Lots, "p", interpret=False).digest, "numba" in sys.modules)
"""


def run(folder: Path) -> list[str]:
    """Fold in a new process: the state's digest, and whether it loaded the compiler."""
    done = subprocess.run(
        [sys.executable, "-c", FOLD], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
        env={**os.environ, cache.FOLDER: str(folder)},
    )  # fmt: skip
    return done.stdout.split()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The folder of kernels that a process left behind, and the digest that it found."""
    folder = tmp_path_factory.mktemp("compiled") / "new" / "folder"
    digest, with_compiler = run(folder)
    assert with_compiler == "True"
    return folder, digest


@pytest.fixture
def kernels(compiled, tmp_path, monkeypatch):
    """A copy of that folder, from which this process loads, too."""
    shutil.copytree(compiled[0], tmp_path / "kernels")
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def test_a_second_process_needs_no_compiler_and_replaces_damaged_kernels(kernels, compiled):
    digest = compiled[1]
    assert run(kernels) == [digest, "False"]
    files = sorted(kernels.iterdir())
    assert len(files) == 3
    for at, file in enumerate(files):
        content = file.read_bytes()
        file.write_bytes(content[: len(cache._MAGIC) + 40] if at % 2 else content[:-1] + bytes([content[-1] ^ 1]))
    assert run(kernels) == [digest, "True"]
    assert run(kernels) == [digest, "False"]
    assert sorted(kernels.iterdir()) == files  # and no other files are left


def test_processes_that_begin_at_once_agree(tmp_path, compiled):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", FOLD], cwd=ROOT, stdout=subprocess.PIPE, text=True,
            env={**os.environ, cache.FOLDER: str(tmp_path)},
        )
        for _ in range(2)
    ]  # fmt: skip
    assert {process.communicate(timeout=180)[0].split()[0] for process in started} == {compiled[1]}
    assert run(tmp_path) == [compiled[1], "False"]


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("no folder")
    monkeypatch.setenv(cache.FOLDER, str(file / "kernels"))
    monkeypatch.setattr(drive, "_known", {})
    compiled, plain = (folded(Tables, [[Tick("a")]], interpret=interpret).states for interpret in (False, True))
    assert digests(compiled) == digests(plain)


def test_what_is_kept_is_named_by_all_that_it_was_made_from(monkeypatch):
    float64, int64 = np.dtype(np.float64), np.dtype(np.int64)
    keys = {
        cache.key_of(parts, types)
        for parts in (["a"], ["b"], ["a", "b"])
        for types in (("int", float64), ("int", int64), ("int",))
    }
    assert len(keys) == 9
    monkeypatch.setattr(cache, "_environment", lambda: ("another processor",))
    assert cache.key_of(["a"], ("int",)) not in keys


def test_a_kernel_is_named_by_every_file_of_the_compiler():
    assert {path.name for path in cache._files_of_the_room()} >= {"kernel.py", "keyed_view.py", "layout.py", "cache.py"}


@pytest.mark.parametrize("content", [b"", b"ELKERN01", b"ELKERN01" + bytes(100), b"something else entirely" * 10])
def test_a_file_that_is_no_kernel_is_none(tmp_path, monkeypatch, content):
    monkeypatch.setenv(cache.FOLDER, str(tmp_path))
    (tmp_path / "key").write_bytes(content)
    assert cache.find("key") is None
    assert cache.find("missing") is None


def test_code_that_needs_what_is_not_here_is_not_loaded():
    with pytest.raises(LookupError, match="no_such_function"):
        native.load(native.Code("entry", b"", ["no_such_function"]))


def test_a_kernel_of_no_reducer_is_what_its_python_is():
    rng = np.random.default_rng(4)
    order = Function(walk.queue_order)
    counts = np.array([2, 0, 3, 1], np.int64)
    links = rng.integers(0, 9, 40).astype(np.int32)
    arguments = (links, 4, np.array([0, 1, 2, 3], np.int64), counts, np.array([0, 2, 4]), np.array([0, 1, 2]))
    compiled, plain = np.empty(6, np.int64), np.empty(6, np.int64)
    order(*arguments, compiled)
    walk.queue_order(*arguments, plain)
    assert compiled.tolist() == plain.tolist()


def test_a_kernel_of_no_reducer_is_named_by_its_files_source(tmp_path, monkeypatch):
    file, source = tmp_path / "somewhere.py", "FACTOR = {}\ndef scaled(values):\n    values[0] *= FACTOR\n"
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "kernels"))
    for factor in (2.0, 3.0):
        file.write_text(source.format(factor))
        scope = {"__name__": "somewhere"}
        exec(compile(file.read_text(), str(file), "exec"), scope)
        values = np.ones(1)
        Function(scope["scaled"])(values)
        assert values.tolist() == [factor]
    assert len(cache.files()) == 2


def test_what_others_could_have_written_is_not_loaded(kernels, compiled, monkeypatch):
    names = list(cache.files())
    assert len(names) > 1
    assert all(cache.find(name) for name in names)
    kernels.chmod(0o770)
    assert not any(cache.find(name) for name in names)
    assert run(kernels) == [compiled[1], "True"]  # compiled without a warning
    kernels.chmod(0o700)
    (kernels / names[0]).chmod(0o646)
    assert [cache.find(name) is None for name in names] == [True, *[False] * (len(names) - 1)]
    if os.getuid() == 0:  # only root can give a file away
        os.chown(kernels / names[1], 1_234, -1)
        os.chown(kernels, 4_321, -1)
    monkeypatch.setattr(os, "getuid", lambda: 4_321)
    assert cache.find(names[1]) is None


KILLED = """
import os, signal
from eventlab.fold.native import cache
from eventlab.fold.native.call import Code
def replaced(self, target):
    os.kill(os.getpid(), signal.SIGKILL)
cache.Path.replace = replaced
cache.keep("a" * 64, Code("entry", b"x" * 1_000_000))
"""


def test_a_process_killed_while_it_writes_leaves_nothing_that_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.FOLDER, str(tmp_path))
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, check=False, timeout=60)
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    assert cache.find("a" * 64) is None
    assert cache.files() == {}
    assert cache.sweep() == 0  # somebody may still be writing it
    os.utime(left, (0, 0))
    assert cache.sweep() == 1


def test_a_full_disk_is_done_without(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setenv(cache.FOLDER, str(tmp_path))
    monkeypatch.setattr(cache.os, "fdopen", full)
    cache.keep("a" * 64, native.Code("entry", b"x"))
    assert list(tmp_path.iterdir()) == []


def test_kernels_that_nobody_uses_are_swept_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.FOLDER, str(tmp_path))
    for name in ("a" * 64, "b" * 64, "notes.txt", ".profile"):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ("b" * 64)).touch()
    assert cache.sweep() == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".profile", "b" * 64, "notes.txt"]


def test_use_keeps_a_kernel_from_being_swept(kernels):
    for name in cache.files():
        os.utime(kernels / name, (0, 0))
    run(kernels)
    assert cache.sweep() == 0
