from __future__ import annotations

import json

import pytest

import eventlab as el


@pytest.mark.parametrize("name", ["all.pb", "folder"])
def test_events_go_out_and_into_another_lab(cli, lab_dir, tmp_path, name):
    done = cli("export", lab_dir, tmp_path / name, "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    taken = cli("ingest", tmp_path / "other", "exported", tmp_path / name, "--json")
    assert taken.exit_code == 0, taken.output
    assert json.loads(taken.stdout)["sources"][0]["events"] == document["events"] == sum(document["types"].values())
    with el.open(lab_dir, read_only=True) as lab, el.open(tmp_path / "other", read_only=True) as other:
        for kind in document["types"]:
            assert lab.events(kind).equals(other.events(kind))


def test_a_part_of_one_type(cli, lab_dir, tmp_path):
    words = ("--type", "portfolio_change", "--aggregate", "portfolio/*", "--start", "2024-01-01T01:00:01Z")
    done = cli("export", lab_dir, tmp_path / "fills.parquet", *words)
    assert done.exit_code == 0, done.output
    assert "1 events (1 portfolio_change)" in done.stdout
    taken = cli("ingest", tmp_path / "other", "exported", tmp_path / "fills.parquet")
    assert "1 events have a cause that was not exported" in taken.stdout


def test_invalid_exports_are_reported(cli, lab_dir, tmp_path):
    several = cli("export", lab_dir, tmp_path / "x.parquet")
    assert (several.exit_code, list(tmp_path.glob("x*"))) == (1, [])
    assert "one type" in several.stderr
    (tmp_path / "x.pb").write_bytes(b"no stream")
    assert cli("ingest", tmp_path / "other", "exported", tmp_path / "x.pb").exit_code == 1
    assert cli("ingest", tmp_path / "other", "exported", tmp_path / "x.pb", "--symbol", "X").exit_code == 2
