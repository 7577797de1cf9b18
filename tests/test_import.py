"""`import eventlab` is light, and its face is complete."""

from __future__ import annotations

import subprocess
import sys

import eventlab as el


def test_importing_loads_nothing_heavy():
    heavy = ("numba", "llvmlite", "matplotlib", "pandas", "IPython", "ipykernel", "ipywidgets", "jupyterlab",
             "polars", "pyarrow", "numpy", "google.protobuf", "tqdm", "typer")  # fmt: skip
    code = f"import sys, eventlab; print([name for name in {heavy!r} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_opening_a_lab_loads_neither_numba_nor_a_notebook():
    heavy = ("numba", "matplotlib", "pandas", "IPython", "ipykernel")
    code = (
        "import sys, eventlab as el\n"
        "with el.open(':memory:') as lab:\n"
        "    lab.append('a', el.TradingSignal('BTC', 'buy', 1.0, 's'))\n"
        "    lab.events(el.TradingSignal)\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_every_name_of_the_face_is_there():
    for name in el.__all__:
        assert getattr(el, name) is not None
        assert name in dir(el)
    try:
        el.nonsense  # noqa: B018
    except AttributeError as error:
        assert "nonsense" in str(error)
    else:
        raise AssertionError("an unknown name must not be found")
