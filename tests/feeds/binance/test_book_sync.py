from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import SequenceGap
from eventlab.feeds import tardis_book
from eventlab.feeds.binance.book_sync import BookSnapshots, BookSync
from eventlab.feeds.reading.file_feed import Tally
from tests.feeds.binance.naive_book_sync import DictBook, Row, apply_rule
from tests.feeds.helpers import block_bytes, events

rows_of = st.lists(st.tuples(st.sampled_from("AB"), st.booleans(), st.integers(-1, 9)), max_size=40)


def pieces(frame: pl.DataFrame, cuts: list[int]) -> list[pl.DataFrame]:
    bounds = sorted({0, len(frame), *(cut for cut in cuts if cut < len(frame))})
    return [frame[start:stop] for start, stop in itertools.pairwise(bounds)]


@given(rows=rows_of, cuts=st.lists(st.integers(1, 40)), other_cuts=st.lists(st.integers(1, 40)))
@example(rows=[("A", False, 5), ("A", True, 3), ("A", True, 4), ("A", False, 4)], cuts=[], other_cuts=[])
@example(rows=[("A", True, 9), ("A", False, 5), ("A", True, 3), ("A", False, 4)], cuts=[2], other_cuts=[1])
def test_the_columnar_rule_equals_its_naive_twin_for_any_split(rows, cuts, other_cuts):
    frame = pl.DataFrame(
        {
            "row": np.arange(1, len(rows) + 1),
            "symbol": pl.Series([row[0] for row in rows], dtype=pl.String),
            "snapshot": pl.Series([row[1] for row in rows], dtype=pl.Boolean),
            "update_id": pl.Series([row[2] if row[2] >= 0 else None for row in rows], dtype=pl.Int64),
        }
    )
    found: dict[str, BookSnapshots] = {}
    for piece in pieces(frame, cuts):
        for symbol in piece["symbol"].unique():
            part = piece.filter(pl.col("symbol") == symbol)
            ids = part["update_id"].fill_null(-1).to_numpy()
            found.setdefault(symbol, BookSnapshots()).see(part["row"].to_numpy(), part["snapshot"].to_numpy(), ids)
    tally = Tally()
    rule = BookSync(found, tally)
    parts = [rule.apply(piece) for piece in pieces(frame, other_cuts)]
    got = pl.concat([frame.clear(), *parts])
    naive = apply_rule([Row(at + 1, *row) for at, row in enumerate(rows)])
    for symbol, expected in naive.items():
        assert got.filter(pl.col("symbol") == symbol)["row"].to_list() == expected
    assert len(got) + sum(tally.dropped.values()) == len(rows)


@pytest.mark.parametrize(("name", "dropped"), [("spot_btcusdt", 17), ("usdm_btcusdt", 259)])
def test_the_real_books_equal_the_best_bids_and_asks_of_an_independent_feed(market_data_dir, name, dropped):
    feed = tardis_book(market_data_dir / "binance" / f"{name}_l2.csv.gz")
    frame = events(feed)
    assert sum(feed.report.dropped.values()) == dropped
    assert feed.report.gaps == 0
    assert feed.report.rows == len(frame) + dropped
    assert frame["snapshot"][:2000].all()
    assert frame["timestamp"].is_sorted()
    quotes = pl.read_csv(market_data_dir / "binance" / f"{name}_bbo.csv.gz", infer_schema_length=None)
    columns = quotes.select("bid_price", "bid_amount", "ask_price", "ask_amount")
    oracle = dict(zip(quotes["update_id"], columns.iter_rows(), strict=True))
    book, compared = DictBook(), 0
    update = frame["update_id"]
    last_of_update = (update != update.shift(-1)).fill_null(value=True)
    columns = frame.select("side", "price", "size", "snapshot", "update_id")
    for row, ends in zip(columns.iter_rows(), last_of_update, strict=True):
        book.change(*row)
        if ends:
            best = book.best()
            assert best[0] < best[2]
            if row[-1] in oracle:
                compared += 1
                assert best == oracle[row[-1]]
    assert compared > 300


def test_the_six_real_files_give_the_known_number_of_events(market_data_dir):
    from eventlab import feeds

    folder = market_data_dir / "binance"
    made = [feeds.tardis_book(path) for path in folder.glob("*_l2.csv.gz")]
    made += [feeds.tardis_quotes(path) for path in folder.glob("*_bbo.csv.gz")]
    made += [feeds.binance_trades(path, "BTCUSDT") for path in folder.glob("*_trades.csv.gz")]
    counts = [sum(len(batch.frame) for chunk in feed.chunks() for batch in chunk.batches) for feed in made]
    assert sum(counts) == 925_836
    assert sum(feed.report.rows for feed in made) == 926_112


HEADER = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount,first_update_id,final_update_id\n"


def line(
    time: int | str, snapshot: bool, first: int, final: int, exchange: str = "binance", price: float = 100.0
) -> str:
    stamp = "" if time == "" else str(1723161255208000 + int(time))
    return f"{exchange},BTCUSDT,{stamp},1723161253937085,{str(snapshot).lower()},bid,{price},1.5,{first},{final}\n"


def test_a_hole_between_spot_updates_is_a_gap(tmp_path):
    file = tmp_path / "book.csv"
    file.write_text(
        HEADER + line("", True, 10, 10) + line(1, False, 9, 12) + line(2, False, 13, 14) + line(3, False, 16, 17)
    )
    feed = tardis_book(file)
    with pytest.warns(SequenceGap, match="16 after 14"):
        events(feed)
    assert feed.report.gaps == 1
    assert feed.report.first_gaps[0].row == 4


def test_a_hole_between_snapshot_and_changes_is_a_gap(tmp_path):
    file = tmp_path / "book.csv"
    file.write_text(HEADER + line("", True, 10, 10) + line(1, False, 12, 13))
    with pytest.warns(SequenceGap, match="12 after 10"):
        events(tardis_book(file))


def test_holes_are_normal_on_futures_but_going_back_is_not(tmp_path):
    file = tmp_path / "book.csv"
    futures = "binance-futures"
    whole = HEADER + line("", True, 10, 10, futures) + line(1, False, 20, 30, futures) + line(2, False, 44, 50, futures)
    file.write_text(whole)
    feed = tardis_book(file)
    events(feed)
    assert feed.report.gaps == 0
    file.write_text(whole + line(3, False, 40, 60, futures))
    with pytest.warns(SequenceGap, match="40 after 50"):
        events(tardis_book(file))


def test_null_times_are_filled_in_output_order(tmp_path):
    file = tmp_path / "book.csv"
    file.write_text(
        HEADER + line(1, False, 5, 9) + line(2, False, 9, 12) + line("", True, 10, 10) + line(3, False, 13, 14)
        + line("", True, 14, 14) + line(9, False, 15, 15)
    )  # fmt: skip
    frame = events(tardis_book(file))
    offsets = (frame["timestamp"].dt.timestamp("us") - 1723161255208000).to_list()
    assert offsets == [2, 2, 3, 3, 9]
    assert frame["snapshot"].to_list() == [True, False, False, True, False]


@settings(max_examples=25)
@given(block=st.integers(150, 2_000))
def test_any_block_size_gives_the_same_events_and_no_split_update(tmp_path_factory, block):
    file = tmp_path_factory.mktemp("book") / "book.csv"
    rows = [line(n, False, n, n, price=float(level)) for n in range(1, 12) for level in range(3)]
    file.write_text(HEADER + "".join([*rows[:9], line("", True, 2, 2), *rows[9:]]))
    whole = events(tardis_book(file))
    with block_bytes(block):
        feed = tardis_book(file)
        chunks = [chunk for chunk in feed.chunks() if chunk.batches]
    frames = [chunk.batches[0].frame for chunk in chunks]
    assert pl.concat(frames).equals(whole)
    ids = [frame["update_id"] for frame in frames]
    assert all(before[-1] != after[0] for before, after in itertools.pairwise(ids))


HEADER = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount,first_update_id,final_update_id\n"


def book_file(path, *rows):
    """Rows of (microseconds, snapshot, side, price, amount, first id, final id)."""
    start = 1_700_000_000_000_000
    lines = [
        f"binance,S,{start + at},{start + at},{str(snapshot).lower()},{side},{price},{amount},{first},{final}\n"
        for at, snapshot, side, price, amount, first, final in rows
    ]
    path.write_text(HEADER + "".join(lines))
    return path


def test_early_changes_take_the_time_of_their_snapshot(tmp_path):
    path = book_file(
        tmp_path / "book.csv",
        (0, False, "bid", 9, 1, 90, 95),
        (1, False, "bid", 9.5, 2, 96, 101),
        (2, False, "ask", 11, 0, 102, 104),
        (3, True, "bid", 9, 5, "", 100),
        (3, True, "ask", 11, 5, "", 100),
        (3, True, "ask", 12, 6, "", 100),
        (4, False, "bid", 9.6, 1, 105, 106),
    )
    feed = tardis_book(path)
    with el.open(":memory:") as lab:
        receipt = lab.ingest(feed, progress=False)
        history = lab.history(el.OrderBook, "book/S")
        changes = lab.events(el.BookChange)
    assert changes["update_id"].to_list() == [100, 100, 100, 101, 104, 106]
    assert (changes["timestamp"].dt.epoch("us") - 1_700_000_000_000_000).to_list() == [3, 3, 3, 3, 3, 4]
    assert history.select("best_bid", "best_ask").rows()[2:] == [(9.0, 11.0), (9.5, 11.0), (9.5, 12.0), (9.6, 12.0)]
    assert receipt.report.dropped == {"changes that the snapshot includes": 1}
    assert receipt.report.warnings == ("2 early changes took the time of the snapshot they follow",)


def test_a_later_snapshot_after_its_early_changes_restarts_the_book(tmp_path):
    path = book_file(
        tmp_path / "book.csv",
        (0, True, "bid", 9, 5, "", 100),
        (0, True, "ask", 11, 5, "", 100),
        (1, False, "bid", 9.5, 1, 101, 102),
        (3, True, "bid", 9, 4, "", 100),
        (3, True, "ask", 11, 4, "", 100),
        (4, False, "ask", 10.4, 1, 103, 104),
    )
    with el.open(":memory:") as lab:
        lab.ingest(tardis_book(path), progress=False)
        book = lab.state(el.OrderBook, "book/S")
    assert (book.best_bid, book.best_bid_size, book.best_ask) == (9.5, 1.0, 10.4)
