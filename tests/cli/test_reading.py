from __future__ import annotations

import json
import re

import pytest

import eventlab as el
from tests.cli.conftest import HOSTILE

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def document(result):
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return json.loads(result.stdout)


def test_info_says_what_is_there(cli, lab_dir):
    found = document(cli("info", lab_dir, "--json"))
    with el.open(lab_dir, read_only=True) as lab:
        assert (found["events"], found["digest"]) == (lab.info().events, lab.info().digest)
    assert [one["aggregate_id"] for one in found["aggregates"]] == [
        "book/BTCUSDT", "market/BTCUSDT", "portfolio/a", "signals/a",
    ]  # fmt: skip
    assert found["aggregates"][2] == {
        "aggregate_id": "portfolio/a", "version": 2, "position": found["events"] - 1,
        "timestamp": "2024-01-01T01:00:01Z",
    }  # fmt: skip
    assert not found["truncated"]
    assert "portfolio/a" in cli("info", lab_dir).stdout
    assert document(cli("info", lab_dir, "--json", "--limit", 1))["truncated"]


def test_events_come_bounded_from_either_end(cli, lab_dir):
    with el.open(lab_dir, read_only=True) as lab:
        prices = lab.events(el.MarketData)["price"].to_list()
    for words, expected in (
        (("--limit", 3), prices[:3]),
        (("--limit", 3, "--last"), prices[-3:]),
        (("--limit", 0), prices),
        (("--limit", len(prices)), prices),
    ):
        found = document(cli("events", lab_dir, "market_data", "--json", *words))
        assert [row["price"] for row in found["rows"]] == expected
        assert found["truncated"] == (len(expected) < len(prices))


def test_events_may_be_named_as_their_class(cli, lab_dir):
    found = document(cli("events", lab_dir, "PortfolioChange", "--columns", "timestamp,quantity,metadata", "--json"))
    assert found == {
        "event_type": "portfolio_change",
        "rows": [
            {"timestamp": "2024-01-01T01:00:00.123456789Z", "quantity": 2.0, "metadata": None},
            {"timestamp": "2024-01-01T01:00:01Z", "quantity": -1.0, "metadata": None},
        ],
        "truncated": False,
    }


def test_events_between_times_of_one_aggregate(cli, lab_dir):
    words = ("events", lab_dir, "portfolio_change", "--json", "--aggregate", "portfolio/*")
    assert len(document(cli(*words, "--start", "2024-01-01T01:00:01Z"))["rows"]) == 1
    assert len(document(cli(*words, "--stop", "2024-01-01T01:00:01Z"))["rows"]) == 1
    assert document(cli(*words, "--stop", "2020-01-01"))["rows"] == []
    assert "no rows" in cli(*(word for word in words if word != "--json"), "--stop", "2020-01-01").stdout


def test_state_is_the_labs_own_at_every_kind_of_moment(cli, lab_dir):
    moments = {
        (): None,
        ("--as-of", "7"): 7,
        ("--version", "7"): 7,
        ("--as-of", "2024-01-01T00:00:10Z"): "2024-01-01T00:00:10Z",
        ("--time", "2024-01-01T00:00:10Z", "--version", "5"): el.AsOf(time="2024-01-01T00:00:10Z", version=5),
        ("--position", "100"): el.AsOf(position=100),
    }
    with el.open(lab_dir, read_only=True) as lab:
        for words, moment in moments.items():
            found = document(cli("state", lab_dir, "trades", "market/BTCUSDT", "--json", *words))
            state = lab.state(el.Trades, "market/BTCUSDT", moment)
            assert (found["version"], found["digest"]) == (state.version, state.digest)
            assert found["state"]["notional"] == state.notional


def test_what_was_known_before_the_first_commit_is_nothing_and_nan_is_null(cli, lab_dir):
    words = ("state", lab_dir, "trades", "market/BTCUSDT", "--known-at", "2020-01-01")
    found = document(cli(*words, "--json"))
    assert (found["version"], found["position"], found["timestamp"], found["state"]["last"]) == (0, None, None, None)
    assert "before the first event" in cli(*words).stdout


def test_state_of_a_book_shows_its_best_levels(cli, lab_dir):
    shown = cli("state", lab_dir, "book", "book/BTCUSDT", "--limit", 2).stdout
    assert "bids (first 2 of" in shown
    assert len(document(cli("state", lab_dir, "book", "book/BTCUSDT", "--json"))["state"]["bids"]) > 2


@pytest.mark.parametrize("name", ["book", "OrderBook", "order_book", "order-book"])
def test_a_reducer_of_eventlabs_may_be_named_as_its_class(cli, lab_dir, name):
    assert document(cli("state", lab_dir, name, "book/BTCUSDT", "--json"))["reducer"] == "OrderBook"


def test_history_at_moments_and_by_bars(cli, lab_dir):
    at = document(cli("history", lab_dir, "portfolio", "portfolio/a", "--at", 2, "--at", 0, "--json"))
    assert [(row["at"], row["version"], row["cash"]) for row in at["rows"]] == [(2, 2, -90.5), (0, 0, 0.0)]
    bars = document(cli("history", lab_dir, "trades", "market/BTCUSDT", "--every", "2s", "--json", "--limit", 2))
    assert [row["at"] for row in bars["rows"]] == ["2024-01-01T00:00:02Z", "2024-01-01T00:00:04Z"]
    assert bars["truncated"]
    tables = document(
        cli("history", lab_dir, "portfolio", "portfolio/a", "--tables", "--json", "--columns", "positions")
    )
    assert tables["rows"][1]["positions"][0]["quantity"] == 1.0


def test_verify_proves_events_and_snapshots(cli, lab_dir):
    with el.open(lab_dir) as lab:
        built = lab.snapshots.build(el.Trades)
    found = document(cli("verify", lab_dir, "--json"))
    assert found["ok"]
    assert found["snapshots"] == {"equal": built.snapshots, "unknown": 0}
    assert cli("verify", lab_dir).stdout.startswith("ok")


@pytest.mark.parametrize(
    "words",
    [("info",), ("events", "market_data"), ("events", "portfolio_change"), ("state", "portfolio", "portfolio/x"),
     ("history", "portfolio", "portfolio/x", "--tables")],
)  # fmt: skip
def test_names_from_data_reach_neither_terminal_nor_markup(cli, hostile_dir, words):
    command, *rest = words
    result = cli(command, hostile_dir, *rest)
    assert result.exit_code == 0, result.output
    assert not _CONTROL.search(result.output)
    if "market_data" in words:
        assert "[red]x[/red]" in result.stdout
        assert r"\x1b[31mred\x07" in result.stdout
    raw = cli(command, hostile_dir, *rest, "--json")
    assert raw.stdout.isascii()
    assert not _CONTROL.search(raw.stdout)


def test_json_gives_names_exactly(cli, hostile_dir):
    rows = document(cli("events", hostile_dir, "market_data", "--json"))["rows"]
    assert tuple(row["symbol"] for row in rows) == HOSTILE
    for symbol in HOSTILE:
        assert document(cli("state", hostile_dir, "trades", f"market/{symbol}", "--json"))["version"] == 1


def test_an_error_shows_a_hostile_name_harmlessly(cli, hostile_dir):
    result = cli("state", hostile_dir, "trades", "market/\x1b[31m[red]")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert r"market/\x1b[31m[red]" in result.stderr
    assert not _CONTROL.search(result.stderr)
