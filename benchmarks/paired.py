"""Measures two checkouts side by side: every benchmark in turns, old and new, with an interval of each ratio.

    python -m benchmarks.paired OLD_CHECKOUT NEW_CHECKOUT --pairs 9 [-k EXPRESSION]

One process per checkout keeps its fixtures and runs a benchmark on request, while the other process waits. Each pair
runs both, in alternating order; its ratio is the new rate over the old one, so above 1 the new checkout is faster. A
row shows the median of its ratios and a distribution-free interval of at least 95%. SLOWER marks a row whose median
is below 0.95 and whose interval is wholly below 1. Predictions and placements are measured once and not judged;
latencies are judged by their medians. The Python that runs this needs the dependencies of both checkouts, and the
peers for the rows that name them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import pytest

SECONDS = 0.4
"""How long one benchmark's rounds take in one half of a pair, where three rounds take no longer."""
LEAST_ROUNDS = 3
LIMIT = 0.95
FEWEST_JUDGED = 6
"""Fewer ratios have no interval of 95%."""

NAMES = ("old", "new")

Measured = dict[str, Any]


class Worker:
    """A pytest plugin that runs single benchmarks on request, again and again, without setting fixtures up anew.

    A request is a line of JSON: an item's index and the most rounds to measure. So is each reply.
    """

    def __init__(self, requests: TextIO, replies: TextIO) -> None:
        self._requests, self._replies = requests, replies
        self._rounds = 1
        self._measured: Measured = {}

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._reply([item.nodeid for item in session.items])
        previous = session.items[0]
        for line in self._requests:
            at, self._rounds = json.loads(line)
            self._measured = {}
            item = session.items[at]
            if item is not previous:
                previous.ihook.pytest_runtest_teardown(item=previous, nextitem=item)
            # The module as next item keeps its fixtures and the session's; the function's are torn down.
            item.ihook.pytest_runtest_protocol(item=item, nextitem=item.parent)
            previous = item
            self._reply(self._measured)
        return True

    def _reply(self, content: object) -> None:
        print(json.dumps(content), file=self._replies, flush=True)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Function) -> Generator[None, Any, Any]:
        benchmark = item.funcargs["benchmark"]
        measure = benchmark.pedantic

        def pedantic(*arguments: Any, rounds: int = 1, **options: Any) -> Any:
            rounds = min(rounds, self._rounds)
            begin = time.perf_counter()
            try:
                return measure(*arguments, rounds=rounds, **options)
            finally:
                self._measured["seconds_per_round"] = (time.perf_counter() - begin) / rounds

        benchmark.pedantic = pedantic
        result = yield
        stats = benchmark.stats.stats
        self._measured["extra_info"] = dict(benchmark.extra_info)
        self._measured["stats"] = {"median": stats.median, "data": list(stats.data)}
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            self._measured["skipped"] = report.longrepr[2]
        elif report.failed:
            self._measured.setdefault("failed", report.longreprtext)


def work(expression: str, folder: str) -> None:
    """Serve requests from standard input."""
    requests, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # pytest and the benchmarks may print
    pytest.main(
        ["benchmarks", "--benchmark-enable", "--benchmark-only", "-p", "no:cacheprovider", "-p", "no:logging",
         f"--basetemp={folder}", "-k", expression],
        plugins=[Worker(requests, replies)],
    )  # fmt: skip


class NotMeasuredError(Exception):
    """A benchmark was skipped, or failed."""


class Side:
    """One checkout's process, as the driver sees it."""

    def __init__(self, checkout: Path, expression: str, folder: Path) -> None:
        folder.mkdir()
        self._name = folder.name
        self._log = folder / "log"
        environment = {**os.environ, "PYTHONPATH": str(checkout), "EVENTLAB_KERNELS": str(folder / "kernels")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        with self._log.open("w") as log:
            # -P: this folder's `profile` must not hide the standard library's.
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, "--worker", str(folder / "temporary"), "-k", expression],
                cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        ids: list[str] = self._reply()
        self.tests = {name: at for at, name in enumerate(ids)}

    def run(self, test: str, rounds: int) -> Measured:
        request = self.tests[test], rounds
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        measured: Measured = self._reply()
        if "failed" in measured or "row" not in measured.get("extra_info", {}):
            errors = [line for line in measured.get("failed", "").splitlines() if line.startswith("E  ")]
            reason = measured.get("skipped") or " ".join(errors[-1:]) or measured.get("failed", "has no row")
            raise NotMeasuredError(f"{self._name}: {reason}")
        return measured

    def _reply(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a measuring process ended; its last output:\n{self._log.read_text()[-4_000:]}")
        return json.loads(line)

    def close(self) -> None:
        self._process.communicate()


def interval(ratios: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Order statistics around the median whose interval covers the true median at least this often.

    Of nine ratios that is the second to the eighth. Fewer than six have no such interval: their range is returned.
    """
    ordered, n = sorted(ratios), len(ratios)
    outside, below = 0.0, 0
    while below < n // 2:
        outside += 2.0 * math.comb(n, below) / 2.0**n
        if outside > 1.0 - confidence:
            break
        below += 1
    below = max(below, 1)
    return ordered[below - 1], ordered[n - below]


def rate(row: Mapping[str, Any]) -> float:
    """A row's measured number, where more is better."""
    value = float(row["measured"])
    return value if row["unit"].endswith("/s") else 1.0 / value


def judged(ratios: Sequence[float]) -> str:
    """A row's cells: median, interval and mark."""
    low, high = interval(ratios)
    middle = statistics.median(ratios)
    mark = "SLOWER" if middle < LIMIT and high < 1.0 and len(ratios) >= FEWEST_JUDGED else ""
    return f"{middle:6.3f}  [{low:.3f}, {high:.3f}]  {mark:6}"


def compare(old: Side, new: Side, test: str, pairs: int) -> str:
    """A line of the report: one benchmark, measured in turns."""
    first = old.run(test, 1), new.run(test, 1)  # fixtures, compiling
    if not {"predictions", "placements"}.isdisjoint(first[1]["extra_info"]):
        return "\n".join(["not judged:", *(f"  {name} {_row(one)}" for name, one in zip(NAMES, first, strict=True))])
    rounds = max(LEAST_ROUNDS, int(SECONDS / max(side.run(test, 5)["seconds_per_round"] for side in (old, new))))
    former, fresh = [], []
    for pair in range(pairs):
        turns = [(old, former), (new, fresh)]
        for side, rows in turns if pair % 2 == 0 else reversed(turns):
            rows.append(_row(side.run(test, rounds)))
    ratios = [rate(after) / rate(before) for before, after in zip(former, fresh, strict=True)]

    def medians(name: str, digits: str) -> Sequence[str]:
        return [f"{statistics.median(row[name] for row in rows):{digits}}" for rows in (former, fresh)]

    figures = " ".join(medians("measured", ">10.4g"))
    beside = "".join(
        f"  ({name}: {' -> '.join(medians(name, '.4g'))})" for name in ("p99", "ratio") if name in fresh[0]
    )
    return f"{judged(ratios)}  {figures} {fresh[0]['unit']:10} {fresh[0]['row']}{beside}"


def _row(measured: Measured) -> Mapping[str, Any]:
    from benchmarks.table import row_of  # of this checkout, for both: the workers import their own

    return row_of(measured["extra_info"], measured["stats"])


def main(old_checkout: Path, new_checkout: Path, expression: str, pairs: int) -> None:
    """Print a line for each benchmark that both checkouts have."""
    with tempfile.TemporaryDirectory(prefix="paired-") as folder:
        old, new = (
            Side(checkout.resolve(), expression, Path(folder) / name)
            for name, checkout in zip(NAMES, (old_checkout, new_checkout), strict=True)
        )
        print("new/old   95% interval              old        new unit       row", flush=True)
        for test in new.tests:
            if test in old.tests:
                try:
                    print(compare(old, new, test, pairs), flush=True)
                except NotMeasuredError as reason:
                    print(f"not measured: {test}: {reason}", flush=True)
        for name, missing in (("old", new.tests.keys() - old.tests), ("new", old.tests.keys() - new.tests)):
            for test in sorted(missing):
                print(f"not measured: {test}: not in the {name} checkout")
        old.close()
        new.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", type=Path, help="the old checkout and the new one")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("-k", default="", metavar="EXPRESSION", help="as pytest selects tests")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.k, given.worker)
    elif len(given.checkouts) == 2:
        main(*given.checkouts, given.k, given.pairs)
    else:
        parser.error("two checkouts are needed: the old one and the new one")
