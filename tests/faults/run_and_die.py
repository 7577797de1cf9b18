"""Runs an operation and is killed at one of its moments: ``run_and_die.py DIRECTORY OPERATION MOMENT``."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

from tests.faults.injection import Moment, layer
from tests.faults.world import OPERATIONS, Stage, small_limits

if __name__ == "__main__":
    path, name, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

    def die(moment: Moment) -> None:
        if moment.number == number:
            os.kill(os.getpid(), signal.SIGKILL)

    with small_limits(), layer() as faults, tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        stage = Stage.of(OPERATIONS[name], Path(scratch))
        store = stage.open(path)
        with faults.armed(die):
            stage.run(path, store, lambda: print("acknowledged", flush=True))
