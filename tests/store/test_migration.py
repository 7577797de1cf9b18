"""A store of format 1, as the eventlab of that time wrote it, is brought up to date and answers as before."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import eventlab as el
from eventlab.errors import StoreCorrupt, StoreTooOld
from eventlab.storage import operations as disk
from eventlab.store.event_log import EventLog
from eventlab.store.read.frames import all_columns

FORMAT_1 = Path(__file__).parent / "format1"
EXPECTED: dict[str, Any] = json.loads((FORMAT_1 / "expected.json").read_text())


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FORMAT_1 / "store", tmp_path / "lab"))


def answers(lab: el.Lab) -> dict[str, Any]:
    """What the store says, in the form of `expected.json`."""
    types = {}
    for name, declared in sorted(lab.store.types().items()):
        frame = lab.events(name, columns=list(all_columns(declared)))
        times = [column for column, dtype in frame.schema.items() if dtype == pl.Datetime("ns", "UTC")]
        enums = [column for column, dtype in frame.schema.items() if isinstance(dtype, pl.Enum)]
        frame = frame.with_columns(pl.col(times).to_physical(), pl.col(enums).cast(pl.String))
        rows = [[value.hex() if isinstance(value, float) else value for value in row] for row in frame.rows()]
        types[name] = {"columns": frame.columns, "rows": rows}
    state = lab.state(el.Portfolio, "portfolio/alpha")
    return {
        "store_id": lab.store.store_id,
        "digest": lab.store.head_digest,
        "events": lab.store.stop_position,
        "types": types,
        "heads": [[h.aggregate_id, h.version, h.position, h.timestamp] for h in lab.store.heads()],
        "portfolio": {"cash": state.cash.hex(), "realized_pnl": state.realized_pnl.hex()},
    }


def expected() -> dict[str, Any]:
    """The state's digest names the reducer's fingerprint, which may change; its numbers may not."""
    portfolio = {name: EXPECTED["portfolio"][name] for name in ("cash", "realized_pnl")}
    return EXPECTED | {"portfolio": portfolio}


def test_a_store_of_format_1_answers_as_before(old: Path):
    with el.open(old) as lab:
        assert answers(lab) == expected()
        assert lab.verify().head == EXPECTED["digest"]
    with el.open(old, read_only=True) as lab:
        assert answers(lab) == expected()


def test_it_goes_on_as_one_log(old: Path):
    with el.open(old) as lab:
        again = lab.append(
            "liquidations/ü/Ω", lab_events(lab), timestamp=[1_699_999_000_000_000_001, 1_699_999_000_000_000_002],
            event_id=["a-1", "a-2"],
        )  # fmt: skip
        assert (again.count, again.first_position) == (2, 302)
        fill = lab.events(event_id="fill-1")
        assert fill["aggregate_id"][0] == "portfolio/alpha"
        receipt = lab.append("portfolio/alpha", el.PortfolioChange("BTCUSDT", 1.0, 62_000.0), expected_version=3)
        assert receipt.position == EXPECTED["events"]
        feed = el.feeds.simulate(symbols=("SIM",), trades=200, seed=7)
        assert lab.ingest(feed, progress=False).already
        lab.seal()
        assert lab.verify().events == EXPECTED["events"] + 1
    with el.open(old) as lab:
        assert lab.verify().events == EXPECTED["events"] + 1


def lab_events(lab: el.Lab) -> list[object]:
    """The two liquidations that are in the store under ids of their own."""
    made = lab.store.types()["liquidation"].cls
    return [
        made(symbol="BTCUSDT", price=59_000.25, note="−0 and Ünïcode", forced=True),
        made(symbol="ETHUSDT", price=-0.0, note=None, forced=False),
    ]


def test_read_only_says_what_to_do(old: Path):
    before = (old / "catalog.sqlite").read_bytes()
    with pytest.raises(StoreTooOld, match="without read_only"):
        el.open(old, read_only=True)
    assert (old / "catalog.sqlite").read_bytes() == before
    assert not (old / "journal").exists()


def test_a_damaged_commit_stops_the_migration(old: Path):
    connection = sqlite3.connect(old / "catalog.sqlite")
    connection.execute("UPDATE tail SET crc = crc + 1 WHERE first_position = (SELECT max(first_position) FROM tail)")
    connection.commit()
    connection.close()
    with pytest.raises(StoreCorrupt, match="damaged"):
        el.open(old)
    connection = sqlite3.connect(old / "catalog.sqlite")
    assert connection.execute("PRAGMA user_version").fetchone()[0] == 1
    connection.close()


@pytest.mark.parametrize("step", range(12))
def test_a_failure_at_any_step_leaves_the_old_store(old: Path, monkeypatch: pytest.MonkeyPatch, step: int):
    """Every file operation of the migration fails once; the next opening succeeds."""
    done = []

    def failing(name: str):
        original = getattr(disk, name)

        def call(*arguments: object):
            done.append(name)
            if len(done) == step + 1:
                raise OSError(28, "No space left on device")
            return original(*arguments)

        return call

    names = ("create", "write_at", "allocate", "truncate", "sync", "sync_content", "sync_directory", "make_directory")
    with monkeypatch.context() as patched:
        for name in names:
            patched.setattr(disk, name, failing(name))
        try:
            el.open(old).close()
        except el.EventlabError:
            assert len(done) > step
    with el.open(old) as lab:
        assert answers(lab) == expected()
        lab.verify()
    assert EventLog.open(old, read_only=True).verify().events == EXPECTED["events"]
