"""After `eventlab warm` no process compiles a built-in reducer; three stand for all, since each takes seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eventlab.fold.native import cache

ROOT = Path(__file__).parents[2]
CHOSEN = ["OrderBook", "Portfolio", "Signals"]  # a ladder; a keyed table, a queue and routed marks; text
ONLY_CHOSEN = f"from eventlab import reducers; reducers.__dir__ = lambda: {CHOSEN}\n"
STATES = (
    ONLY_CHOSEN
    + """
import sys
import eventlab as el
from eventlab import reducers
from eventlab.fold.native import cache
from eventlab.fold import fold

EVENTS = {
    "market_data": lambda k: el.MarketData("BTCUSDT", 100.0 + k % 7, 1.0, side="buy" if k % 3 else None),
    "book_change": lambda k: el.BookChange("BTCUSDT", "bid" if k % 2 else "ask", 100.0 + k % 9, 1.0 + k % 3),
    "quote": lambda k: el.Quote("BTCUSDT", 99.0, 1.0 + k % 5, 100.0, 2.0),
    "portfolio_change": lambda k: el.PortfolioChange("BTCUSDT", 1.0 - k % 3, 100.0 + k % 7, fee=0.5),
    "trading_signal": lambda k: el.TradingSignal("BTCUSDT", "buy", 0.5, "test"),
    "funding": lambda k: el.Funding("BTCUSDT", 0.0001),
    "bar": lambda k: el.Bar("BTCUSDT", 1.0, 2.0, 0.5, 1.5, 10.0),
}
before = set(cache.files())
lab = el.open(":memory:")
for kind, made in EVENTS.items():
    lab.append(kind, [made(k) for k in range(3_100)])
for name in dir(reducers):
    reducer = getattr(reducers, name)
    for kind in reducer.handlers:
        assert lab.state(reducer, kind).version == 3_100
        assert len(lab.history(reducer, kind)) == 3_100
        if reducer.routed:
            lab.state(reducer, kind, mark_with="market_data")
assert all(known.kernels for known in fold._known.values()), "something was interpreted"
assert len(fold._known) >= len(dir(reducers))
assert "numba" not in sys.modules, "the compiler was needed"
assert set(cache.files()) == before, "something was compiled"
"""
)


@pytest.fixture(scope="module")
def warmed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache") / "kernels"
    return folder, json.loads(warm(folder, "--json"))


def warm(folder: Path, *words: str) -> str:
    code = ONLY_CHOSEN + "from eventlab.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "warm", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300,
        env={**os.environ, cache.FOLDER: str(folder)},
    )  # fmt: skip
    return done.stdout


def test_no_process_needs_the_compiler_after_it(warmed):
    folder, document = warmed
    assert document["folder"] == str(folder)
    assert document["kernels"] == document["new"] == len(list(folder.iterdir())) > len(CHOSEN)
    done = subprocess.run(
        [sys.executable, "-c", STATES], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, cache.FOLDER: str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_what_is_there_is_not_compiled_again(warmed):
    folder, document = warmed
    written = {path: path.read_bytes() for path in folder.iterdir()}
    assert json.loads(warm(folder, "--json")) == {**document, "new": 0}
    assert {path: path.read_bytes() for path in folder.iterdir()} == written
    assert f"{folder}: {document['kernels']} kernels" in warm(folder)


def test_a_folder_that_others_can_write_to_is_refused(cli, tmp_path, monkeypatch):
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "open"))
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    done = cli("warm")
    assert done.exit_code == 1
    assert "EVENTLAB_KERNELS" in done.stderr
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "file"))
    assert cli("warm").exit_code == 1
