"""The start of a process: importing, and the first state including opening and compiling."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.conftest import Size
from benchmarks.measure import compare

ROOT = Path(__file__).parents[1]


def _python(code: str, arguments: Sequence[str] = (), kernels: Path | None = None) -> None:
    environment = {**os.environ, **({} if kernels is None else {"EVENTLAB_KERNELS": str(kernels)})}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or each process would compile all of eventlab's source
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, cwd=ROOT, env=environment)


def test_import(benchmark: Any, size: Size) -> None:
    compare(
        benchmark, lambda: _python("import eventlab"), lambda: _python("pass"), rounds=size(5, 1), seconds=True,
        row="start: a process that imports eventlab", events=1, against="a Python process that does nothing",
    )  # fmt: skip


COMPILERS = """
import sys, numba, polars, pyarrow
sys.path.insert(0, sys.argv[1])
import trivial
trivial.double(1.0)
"""
TRIVIAL = """
from numba import njit

@njit(cache=True)
def double(x):
    return x + x
"""


def _beside_compilers(
    benchmark: Any, size: Size, tmp_path: Path, row: str, ours: Callable[[], None], **wanted: float
) -> None:
    """Compared with a process that uses the same libraries and one small compiled function."""
    (tmp_path / "trivial.py").write_text(TRIVIAL)
    compare(
        benchmark, ours, lambda: _python(COMPILERS, [str(tmp_path)]), row=row, events=1, seconds=True,
        against="one that imports Numba, Polars and PyArrow, and calls a kept function of Numba's",
        rounds=size(7, 1), **wanted,
    )  # fmt: skip


STATE = """
import sys, eventlab as el
with el.open(sys.argv[1], read_only=True) as lab:
    lab.state(el.Trades, "market/BTCUSDT", int(sys.argv[2]))
"""


def test_first_state(benchmark: Any, size: Size, market_path: Path, tmp_path: Path) -> None:
    empty = (tmp_path / str(number) for number in itertools.count())
    arguments = str(market_path), str(size(1_000_000, 2_000))
    _beside_compilers(
        benchmark, size, tmp_path, "start: a process that asks for the state after a million trades, compiling in it",
        lambda: _python(STATE, arguments, next(empty)), wanted_above_seconds=2.0,
    )  # fmt: skip


def test_first_state_with_a_kept_kernel(benchmark: Any, size: Size, market_path: Path, tmp_path: Path) -> None:
    arguments = str(market_path), str(size(1_000_000, 2_000))
    _beside_compilers(
        benchmark, size, tmp_path, "start: the same, its kernel kept by an earlier process",
        lambda: _python(STATE, arguments, tmp_path / "kernels"), wanted_above_seconds=0.15,
    )  # fmt: skip


def test_first_small_state(benchmark: Any, size: Size, market_path: Path, tmp_path: Path) -> None:
    _beside_compilers(
        benchmark, size, tmp_path, "start: the same after 1,000 trades, which needs no compiling",
        lambda: _python(STATE, [str(market_path), "1000"]),
    )  # fmt: skip
