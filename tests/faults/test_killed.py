"""Processes that are really killed, at a few of the moments that `test_every_step.py` tries all of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.injection import layer
from tests.faults.world import OPERATIONS, Stage, check_image

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["append", "bulk append", "seal"])
def test_a_killed_process_leaves_a_whole_log(folder: Path, name: str):
    stage = Stage.of(OPERATIONS[name], folder)
    with layer() as faults:
        path = stage.copy(folder / "undisturbed")
        store = stage.open(path)
        with faults.armed(lambda moment: None) as met:
            stage.run(path, store)
        moments = [moment.number for moment in met if moment.name in ("write_at", "COMMIT")]
        assert store is not None
        store.close()
    for number in moments[:: max(len(moments) // 3, 1)]:
        path = stage.copy(folder / f"killed-{number}")
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults.run_and_die", str(path), name, str(number)],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == -9, done.stderr
        acknowledged = done.stdout.count("acknowledged")
        check_image(path, stage.states[acknowledged : acknowledged + 2])
