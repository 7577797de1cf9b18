"""The notebooks run whole and offline, in a fresh kernel of this interpreter; they are stored without results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPLAY = "01_replay_market_and_portfolio"
INTERVALS = "02_snapshot_intervals_and_latency"
SECONDS = 300

# Zmq does not go through Python's sockets, so the kernel still talks to the test.
OFFLINE_KERNEL = """
import runpy, socket
def refuse(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        raise OSError(f"a notebook reached for the network: {address}")
    return connect(self, address)
connect, socket.socket.connect = socket.socket.connect, refuse
socket.getaddrinfo = lambda *_, **__: refuse(socket.socket(), "a host name")
runpy.run_module("ipykernel_launcher", run_name="__main__")
"""


# In a separate process: clients of kernels leave sockets to the garbage collector.
RUNNER = """
import sys, nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
source, kernels, sockets, folder, seconds, target = sys.argv[1:]
notebook = nbformat.read(source, as_version=4)
specs = KernelSpecManager(kernel_dirs=[kernels], ensure_native_kernel=False)
manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs, transport="ipc", ip=sockets)
resources = {"metadata": {"path": folder}}
NotebookClient(notebook, km=manager, timeout=int(seconds), resources=resources).execute()
nbformat.write(notebook, target)
"""


@pytest.fixture
def execute(tmp_path):
    """A function that runs a notebook from the repository in an empty folder and gives it back with its outputs."""
    spec = tmp_path / "kernels" / "python3"
    spec.mkdir(parents=True)
    argv = [sys.executable, "-c", OFFLINE_KERNEL, "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    empty = tmp_path / "empty"
    empty.mkdir()
    outside = {name: value for name, value in os.environ.items() if not name.startswith("EVENTLAB_")}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    outside["PYTHONPATH"] = os.pathsep.join(paths)
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        outside[variable] = str(tmp_path / variable)

    def run(name: str, **variables: str) -> Any:
        target = tmp_path / "executed.ipynb"
        # Paths of sockets are short: about a hundred letters on most systems.
        with tempfile.TemporaryDirectory(prefix="nb-") as sockets:
            arguments = (ROOT / "notebooks" / f"{name}.ipynb", spec.parent, f"{sockets}/s", empty, SECONDS, target)
            done = subprocess.run(
                [sys.executable, "-c", RUNNER, *map(str, arguments)],
                env=outside | variables,
                capture_output=True,
                text=True,
                check=False,
                timeout=2 * SECONDS,
            )
        assert done.returncode == 0, done.stderr[-4_000:]
        assert not list(empty.iterdir()), "a notebook left files behind"
        return nbformat.read(target, as_version=4)

    return run


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def figures(notebook: Any) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def texts(notebook: Any) -> str:
    return "\n".join(
        content
        for output in outputs(notebook)
        for kind, content in output.get("data", {}).items()
        if kind in ("text/plain", "text/markdown", "text/html")
    )


def problems(notebook: Any) -> list[Any]:
    """Errors, what was written to stderr, and cells that did not run."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    noise = [o for o in outputs(notebook) if o.output_type == "error" or o.get("name") == "stderr"]
    return noise + [cell.source for cell in cells if not cell.execution_count]


def test_replaying_a_market_and_a_portfolio(execute):
    notebook = execute(REPLAY)
    assert problems(notebook) == []
    assert figures(notebook) >= 4
    assert "Portfolio of portfolio/crossover" in texts(notebook)
    assert "when the fills were recorded" in texts(notebook)


def test_replaying_trades_of_a_file(execute, market_data_dir):
    notebook = execute(REPLAY, EVENTLAB_DATA=str(market_data_dir / "binance" / "spot_btcusdt_trades.csv.gz"))
    assert problems(notebook) == []
    assert figures(notebook) >= 3  # a file of trades has no book
    assert "19,904" in texts(notebook)


def test_comparing_snapshot_intervals_and_latency(execute):
    notebook = execute(INTERVALS)
    assert problems(notebook) == []
    assert figures(notebook) == 5
    assert "snapshots do not pay" in texts(notebook) or "The quickest reads come with" in texts(notebook)
    assert "Is the state the one that a replay gives? **True**" in texts(notebook)
    assert "OrderBook of book/ETHUSDT: version" in texts(notebook)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_results(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.metadata
        if cell.cell_type == "code":
            assert cell.execution_count is None
            assert not cell.outputs
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }


def test_these_are_all_notebooks():
    assert [path.stem for path in NOTEBOOKS] == [REPLAY, INTERVALS]
