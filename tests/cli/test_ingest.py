from __future__ import annotations

import json

import eventlab as el

TRADES = "7,61837.63,0.02,1236.75,1723161255342,true\n8,61837.64,0.5,30918.82,1723161255343,false\n"


def test_a_file_goes_in_once(cli, tmp_path):
    file, lab = tmp_path / "t.csv", tmp_path / "lab"
    file.write_text(TRADES)
    first = cli("ingest", lab, "binance-trades", file, "--symbol", "BTCUSDT", "--json")
    assert first.exit_code == 0, first.output
    source = json.loads(first.stdout)["sources"][0]
    assert (source["events"], source["added"], source["already"], source["gaps"]) == (2, 2, False, 0)
    again = cli("ingest", lab, "binance-trades", file, "--symbol", "BTCUSDT")
    assert "already" in again.stdout
    with el.open(lab, read_only=True) as opened:
        assert opened.state(el.Trades, "market/BTCUSDT").count == 2


def test_gaps_are_reported_on_stderr(cli, tmp_path):
    file = tmp_path / "t.csv"
    file.write_text(TRADES.replace("8,6", "9,6"))
    result = cli("ingest", tmp_path / "lab", "binance-trades", file, "--symbol", "BTCUSDT")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: ")
    assert "1 gaps" in result.stdout


def test_a_simulation_with_its_options(cli, tmp_path):
    lab = tmp_path / "lab"
    result = cli("ingest", lab, "simulate", "--symbols", "A,B", "--trades", 300, "--seed", 3, "--books", "--bars", "1m")
    assert result.exit_code == 0, result.output
    expected = el.feeds.simulate(symbols=("A", "B"), trades=300, seed=3, books=True, bars="1m")
    with el.open(lab, read_only=True) as opened, el.open(":memory:") as other:
        other.ingest(expected, progress=False)
        assert opened.state(el.Trades, "market/A").digest == other.state(el.Trades, "market/A").digest
        assert opened.store.aggregate_ids() == ["bar/A", "bar/B", "book/A", "book/B", "market/A", "market/B"]


def test_bars_with_columns_named(cli, tmp_path):
    file = tmp_path / "b.csv"
    file.write_text("when,o,h,l,c,v\n2020-01-16,1,4,1,3,10\n")
    words = ("--time", "when", "--open", "o", "--high", "h", "--low", "l", "--close", "c", "--volume", "v")
    result = cli("ingest", tmp_path / "lab", "bars", file, "--symbol", "X", "--aggregate-id", "daily/{symbol}", *words)
    assert result.exit_code == 0, result.output
    with el.open(tmp_path / "lab", read_only=True) as lab:
        assert lab.events(el.Bar, "daily/X")["close"].to_list() == [3.0]


def test_late_events_are_refused_or_clamped(cli, tmp_path):
    file = tmp_path / "t.csv"
    file.write_text(TRADES.replace("255343", "255000"))
    words = ("binance-trades", file, "--symbol", "BTCUSDT")
    assert cli("ingest", tmp_path / "a", *words).exit_code == 1
    clamped = cli("ingest", tmp_path / "b", *words, "--late", "clamp", "--json")
    assert json.loads(clamped.stdout)["sources"][0]["clamped"] == 1


def test_options_of_another_feed_and_what_is_missing_are_usage_errors(cli, tmp_path):
    file = tmp_path / "t.csv"
    file.write_text(TRADES)
    for words in (
        ("binance-trades", file),
        ("binance-trades", "--symbol", "X"),
        ("binance-trades", file, "--symbol", "X", "--trades", "5"),
        ("tardis-book", file, "--open", "o"),
        ("simulate", file),
        ("simulate", "--symbol", "X"),
        ("nonsense", file),
    ):
        result = cli("ingest", tmp_path / "lab", *words)
        assert result.exit_code == 2, result.output
    assert not (tmp_path / "lab").exists()


def test_a_missing_second_file_leaves_nothing_behind(cli, tmp_path):
    file = tmp_path / "t.csv"
    file.write_text(TRADES)
    result = cli("ingest", tmp_path / "lab", "binance-trades", file, tmp_path / "nowhere.csv", "--symbol", "X")
    assert result.exit_code == 1
    assert not (tmp_path / "lab").exists()


def test_every_feed_has_a_name():
    from typing import get_args

    from eventlab.cli.ingest import FeedName

    public = {name for name in el.feeds.__all__ if name.islower()}
    assert {name.replace("-", "_") for name in get_args(FeedName)} == public
