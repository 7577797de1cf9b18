"""What a fresh process pays first: importing, and the first state with compiling and opening in it."""

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
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, cwd=ROOT, env=environment)


def _start(
    benchmark: Any, size: Size, row: str, code: str, *arguments: str, kernels: Callable[[], Path] | None = None
) -> None:
    compare(
        benchmark, lambda: _python(code, arguments, kernels and kernels()), lambda: _python("pass"), row=row, events=1,
        against="a Python process that does nothing", rounds=size(5, 1), seconds=True,
    )  # fmt: skip


def test_import(benchmark: Any, size: Size) -> None:
    _start(benchmark, size, "start: a process that imports eventlab", "import eventlab")


STATE = """
import sys, eventlab as el
with el.open(sys.argv[1], read_only=True) as lab:
    lab.state(el.Trades, "market/BTCUSDT", int(sys.argv[2]))
"""


def test_first_state(benchmark: Any, size: Size, market_path: Path, tmp_path: Path) -> None:
    row = "start: a process that asks for the state after a million trades, compiling in it"
    empty = (tmp_path / str(number) for number in itertools.count())
    version = str(size(1_000_000, 2_000))
    _start(benchmark, size, row, STATE, str(market_path), version, kernels=lambda: next(empty))


def test_first_state_with_a_kept_kernel(benchmark: Any, size: Size, market_path: Path, tmp_path: Path) -> None:
    row = "start: the same, its kernel kept by an earlier process"
    _start(benchmark, size, row, STATE, str(market_path), str(size(1_000_000, 2_000)), kernels=lambda: tmp_path)


def test_first_small_state(benchmark: Any, size: Size, market_path: Path) -> None:
    row = "start: the same after 1,000 trades, which needs no compiling"
    _start(benchmark, size, row, STATE, str(market_path), "1000")
