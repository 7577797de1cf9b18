from __future__ import annotations

import json
import math
import re
import shutil
from html.parser import HTMLParser

import polars as pl
import pytest
from typer.testing import CliRunner

import eventlab as el
from eventlab.cli import app
from eventlab.demo import market, report
from eventlab.demo.folder import MARKER, Folder
from eventlab.demo.run import Plan, run
from eventlab.errors import EventlabError

HOSTILE = "<script>alert(1)</script>$x_{2}$&\"'"


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.ids = [], [], []
        self.open = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]


def check_self_contained(text):
    page = Page(text)
    assert "http://" not in text
    assert "https://" not in text
    assert not {"script", "link", "iframe", "img", "object", "embed", "base"} & set(page.tags)
    for _, name, value in page.attributes:
        assert not name.startswith("on")
        if name == "src":
            assert value.startswith("data:")
        if name in ("href", "xlink:href"):
            assert value.startswith("#")
    for target in re.findall(r"url\((.*?)\)", text):
        assert target.startswith("#")
    assert "@import" not in text
    return page


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    return run(Plan(out, trades=20_000, reads=3), quiet=True), out


def test_it_runs_and_tells_what_it_found(simulated):
    found, out = simulated
    json.dumps(found, allow_nan=False)
    assert found["sources"][0]["events"] == 20_000
    assert found["trader"]["signals"] == found["trader"]["fills"] > 0
    assert [row["interval"] for row in found["snapshot_intervals"]] == [None, 100, 1_000, 10_000]
    assert len(found["latency_by_length"]) > 2
    assert found["proof"]["events"] == found["info"]["events"]
    assert found["proof"]["snapshots"] > 0
    with el.open(out / "lab", read_only=True) as lab:
        assert lab.verify().head == found["proof"]["digest"]
        for past in found["past_states"]:
            reducer = el.Portfolio if past["aggregate_id"].startswith("portfolio") else el.Trades
            assert lab.state(reducer, past["aggregate_id"], past["version"]).digest == past["digest"]


def test_equity_is_marked_at_the_markets_last_trades(simulated):
    found, out = simulated
    with el.open(out / "lab", read_only=True) as lab:
        state = lab.state(el.Portfolio, "portfolio/crossover")
        worth = state.cash
        for row in state.positions.iter_rows(named=True):
            worth += row["quantity"] * lab.state(el.Trades, f"market/{row['symbol']}").last
    assert math.isclose(found["portfolio"]["equity"], worth, rel_tol=1e-12)


def test_the_trace_leads_from_fill_to_market(simulated):
    fill, signal, event = simulated[0]["trace"]["rows"]
    assert [row["event"] for row in (fill, signal, event)] == ["fill", "signal", "market event"]
    assert (fill["caused by"], signal["caused by"]) == (signal["position"], event["position"])
    assert event["time"] < signal["time"] < fill["time"] or event["time"] <= signal["time"]


def test_the_report_needs_nothing_but_itself(simulated):
    found, out = simulated
    text = (out / "report.html").read_text(encoding="utf-8")
    page = check_self_contained(text)
    assert page.tags.count("svg") == 5
    assert found["proof"]["digest"] in text
    assert "viewport" in text
    assert "prefers-color-scheme:dark" in text


def test_a_rerun_replaces_its_own_and_leaves_other_files(simulated, tmp_path):
    _, made = simulated
    out = tmp_path / "again"
    shutil.copytree(made, out)
    (out / "notes.txt").write_text("mine")
    found = run(Plan(out, trades=2_000, reads=1), quiet=True)
    assert found["sources"][0]["events"] == 2_000
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / ".report.html.new").exists()


@pytest.mark.parametrize("case", ["no marker", "other marker", "another lab", "a foreign file", "link", "report only"])
def test_what_no_demo_made_is_left_alone(tmp_path, case):
    out = tmp_path / "out"
    folder = Folder(out)
    folder.prepare()
    if case == "report only":
        folder.report.write_text("mine")
    else:
        with el.open(out / "lab") as lab:
            folder.mark(lab.store.store_id)
    if case in ("no marker", "report only"):
        (out / MARKER).unlink()
    if case == "other marker":
        (out / MARKER).write_text('["nonsense"]')
    if case == "another lab":
        folder.mark("another")
    if case == "a foreign file":
        (out / "lab" / "thesis.tex").write_text("years of work")
    if case == "link":
        (out / "lab").rename(tmp_path / "elsewhere")
        (out / "lab").symlink_to(tmp_path / "elsewhere")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(EventlabError, match="was not made by the demo"):
        folder.prepare()
    # opening a store to look at its id leaves SQLite's index beside it
    after = {path: path.read_bytes() for path in before}
    assert {p: c for p, c in after.items() if "-shm" not in p.name} == {
        p: c for p, c in before.items() if "-shm" not in p.name
    }


def test_a_broken_off_demo_is_cleared_away(tmp_path):
    folder = Folder(tmp_path / "out")
    folder.prepare()
    el.open(folder.lab).close()
    folder.prepare()
    assert not folder.lab.exists()
    folder.lab.mkdir()
    (folder.lab / "catalog.sqlite").write_bytes(b"torn")
    folder.prepare()
    assert not folder.lab.exists()


def test_names_are_escaped_in_every_part_of_the_report(tmp_path, monkeypatch):
    def hostile(trades, seed):
        return [el.feeds.simulate(symbols=(HOSTILE,), trades=trades, seed=seed, rate=100, books=True)]

    monkeypatch.setattr(market, "simulated", hostile)
    found = run(Plan(tmp_path / "out", trades=5_000, reads=1), quiet=True)
    assert HOSTILE in found["portfolio"]["positions"][0]["symbol"]
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    check_self_contained(text)
    assert "&lt;script&gt;alert(1)" in text
    assert "<script" not in text


def test_a_path_is_escaped_too(simulated):
    found = dict(simulated[0])
    found["lab"] = "data/<b>&x"
    pictures = dict.fromkeys(("market", "portfolio", "intervals", "lengths"), "<svg></svg>")
    assert "data/&lt;b&gt;&amp;x" in report.page(found, pictures)
    assert "<b>&x" not in report.page(found, pictures)


def test_a_market_on_which_nothing_can_be_decided_still_gives_a_report(tmp_path):
    file = tmp_path / "BTCUSDT-trades.csv"
    file.write_text("".join(f"{at},100.0,1,100,{1723161255000 + at},true\n" for at in range(30)))
    found = run(Plan(tmp_path / "out", data=(file,), reads=1), quiet=True)
    assert found["trace"] is None
    assert found["portfolio"]["equity"] == 100_000.0
    check_self_contained((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))


def test_real_files(market_data_dir, tmp_path):
    folder = market_data_dir / "binance"
    names = ("spot_btcusdt_trades", "usdm_btcusdt_trades", "spot_btcusdt_bbo")
    data = tuple(folder / f"{name}.csv.gz" for name in names)
    found = run(Plan(tmp_path / "out", data=data, reads=2), quiet=True)
    assert not found["simulated"]
    assert {source["feed"] for source in found["sources"]} == {"binance_trades", "tardis_quotes"}
    assert found["trader"]["markets"] == ["market/usdm/BTCUSDT", "market/spot/BTCUSDT"]
    assert found["market"]["trades"] == 21_313
    with el.open(tmp_path / "out" / "lab", read_only=True) as lab:
        assert lab.events(el.MarketData, columns=["position"]).select(pl.len()).item() == 41_217
    check_self_contained((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))


def test_the_command(tmp_path):
    words = ["demo", "--out", str(tmp_path / "out"), "--trades", "2000"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    for title in (
        "Ingested events",
        "Trace of one position",
        "Time travel",
        "Comparison of snapshot intervals",
        "Verification",
        "Report",
    ):
        assert title in result.stdout
    assert "report.html" in result.stdout
    found = CliRunner().invoke(app, [*words, "--json"])
    assert json.loads(found.stdout)["trader"]["bar"]


def test_a_file_that_is_not_understood_is_said_clearly_and_nothing_is_made(tmp_path):
    (tmp_path / "x.csv").write_text("hello\n")
    result = CliRunner().invoke(app, ["demo", "--data", str(tmp_path / "x.csv"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "has an unknown format" in result.stderr
    assert not (tmp_path / "out").exists()
