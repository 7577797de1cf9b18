"""The README's code runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_tour_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.stderr, "write", lambda _: 0)  # the progress bar
    scope: dict[str, Any] = {}
    exec(compile(BLOCKS[0], str(README), "exec"), scope)
    printed = capsys.readouterr().out
    assert "average_cost" in printed
    assert scope["early"].version == 1_000
    assert scope["market"].version > 20_000
    bars = scope["bars"]
    assert bars["bought"].is_sorted()


BEFORE = """
import eventlab as el, polars as pl
@el.event
class Liquidation:
    symbol: el.Symbol
    price: float
    volume: float
lab = el.open(":memory:")
lab.append("liquidations", Liquidation("BTCUSDT", 100.0, 0.5))
"""
AFTER = """
print(lab.events(Liquidation, columns=["symbol", "notional", "forced"]).rows())
"""


def test_the_upcaster_runs():
    # In a separate process: event types and upcasters stay declared.
    done = subprocess.run(
        [sys.executable, "-c", BEFORE + BLOCKS[1] + AFTER], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "[('BTCUSDT', 50.0, True)]\n", done.stderr


@pytest.mark.parametrize("command", re.findall(r"^eventlab (\w+)", README.read_text(encoding="utf-8"), re.MULTILINE))
def test_named_commands_exist(command):
    from typer.testing import CliRunner

    from eventlab.cli import app

    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
