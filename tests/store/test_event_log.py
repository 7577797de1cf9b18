"""A log's life: what it keeps open, what keeps it open, and where it lives."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import eventlab as el
from eventlab.errors import StoreError

DESCRIPTORS = Path("/proc/self/fd")
SIGNAL = el.TradingSignal("BTCUSDT", "buy", 1.0, "test")


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Nothing is collected but what no name refers to any more."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="the system does not list a process's descriptors")
@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.usefixtures("no_collector")
def test_a_dropped_lab_gives_its_descriptors_back(tmp_path: Path, read_only: bool):
    with el.open(tmp_path / "lab") as lab:
        lab.append("signals", [SIGNAL] * 3)

    def use() -> None:
        lab = el.open(tmp_path / "lab", read_only=read_only)
        assert lab.state(el.Signals, "signals").version == len(lab.events(el.TradingSignal))
        if not read_only:
            lab.append("signals", SIGNAL)
            lab.seal()

    use()
    before = len(list(DESCRIPTORS.iterdir()))
    for _ in range(3):
        use()
    assert len(list(DESCRIPTORS.iterdir())) == before
    with el.open(tmp_path / "lab", read_only=True) as lab:
        assert lab.verify().events == (3 if read_only else 7)


@pytest.mark.usefixtures("no_collector")
def test_what_was_made_of_a_dropped_lab_goes_on(tmp_path: Path):
    with el.open(tmp_path / "lab") as lab:
        lab.append("signals", [SIGNAL] * 3)
    cursor = el.open(tmp_path / "lab").cursor(el.Signals, "signals")
    assert cursor.seek(2).version == 2
    scanned = el.open(tmp_path / "lab").scan(el.TradingSignal)
    assert scanned.select(pl.len()).collect().item() == 3
    view = el.open(tmp_path / "lab").projection(el.Signals)
    assert view.update() == 3
    store = el.open(tmp_path / "lab").store  # its lab's snapshots, which follow commits, are gone
    assert el.Lab(store).append("signals", SIGNAL).version == 4
    assert store.verify().events == 4
    heard: list[int] = []
    lab = el.Lab(store)
    lab.on(el.TradingSignal)(lambda frame: heard.extend(frame["version"]))
    del lab
    el.Lab(store).append("signals", SIGNAL)
    assert heard == [5]


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with el.open("lab") as lab:
        assert lab.store.path == str(tmp_path / "lab")
        lab.append("signals", [SIGNAL] * 10)
        monkeypatch.chdir("elsewhere")
        lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=10_000, seed=1), progress=False)
        lab.seal()
        lab.snapshots.build(el.Trades)
        lab.backup(tmp_path / "copy")
    assert not list((tmp_path / "elsewhere").iterdir())
    with el.open(tmp_path / "lab", read_only=True) as lab:
        assert lab.verify().events == 10_010
        assert lab.state(el.Trades, "market/BTCUSDT").count == 10_000


@pytest.mark.parametrize("replaced", [False, True])
def test_a_log_whose_directory_is_gone_refuses_appends(tmp_path: Path, replaced: bool):
    path = tmp_path / "lab"
    with el.open(path) as lab:
        lab.append("signals", SIGNAL)
        path.rename(tmp_path / "moved")
        if replaced:
            el.open(path).close()
        for change in (lambda: lab.append("signals", SIGNAL), lab.seal):
            with pytest.raises(StoreError, match="removed, moved or replaced"):
                change()
    with el.open(tmp_path / "moved") as lab:
        assert lab.verify().events == 1
        lab.append("signals", SIGNAL)
        shutil.rmtree(tmp_path / "moved")
        with pytest.raises(StoreError, match="removed, moved or replaced"):
            lab.append("signals", SIGNAL)
