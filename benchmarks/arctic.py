"""ArcticDB's side of a comparison, in another interpreter: its releases need another protobuf.

EVENTLAB_ARCTICDB_PYTHON names that interpreter, which needs arcticdb and pyarrow and knows nothing of eventlab.

python benchmarks/arctic.py room FOLDER FILE.parquet ...      prints the bytes it takes for these tables
python benchmarks/arctic.py append FOLDER ROWS COMMITS        prints the seconds of a commit, one a line
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VARIABLE = "EVENTLAB_ARCTICDB_PYTHON"


def ask(*arguments: str) -> list[float]:
    """The numbers that ArcticDB's side prints; the benchmark is skipped where no interpreter with it is named."""
    import pytest  # not where the other side runs

    python = os.environ.get(VARIABLE)
    if not python:
        pytest.skip(f"{VARIABLE} names no Python that has arcticdb")
    done = subprocess.run([python, __file__, *arguments], capture_output=True, text=True, check=True, timeout=600)
    return [float(line) for line in done.stdout.split()]


def room(library: Any, files: Sequence[str]) -> None:
    import pandas as pd

    for file in files:
        library.write(Path(file).stem, pd.read_parquet(file))


def append(library: Any, rows: int, commits: int) -> None:
    import numpy as np
    import pandas as pd

    for number in range(commits):
        index = pd.DatetimeIndex(np.arange(rows) + number * rows + 1_700_000_000_000_000_000)
        frame = pd.DataFrame({"price": np.full(rows, 60_000.5), "volume": np.full(rows, 0.01)}, index=index)
        begin = time.perf_counter()
        library.append("trades", frame)
        print(time.perf_counter() - begin)


def main() -> None:
    import arcticdb

    job, folder, *rest = sys.argv[1:]
    library = arcticdb.Arctic(f"lmdb://{folder}").get_library("bench", create_if_missing=True)
    if job == "append":
        append(library, int(rest[0]), int(rest[1]))
        return
    room(library, rest)
    del library
    # LMDB reserves its file ahead: only allocated blocks count.
    print(sum(file.stat().st_blocks * 512 for file in Path(folder).rglob("*") if file.is_file()))


if __name__ == "__main__":
    main()
