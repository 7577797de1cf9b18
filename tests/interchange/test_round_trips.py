"""What is exported comes back, field for field and bit for bit; what is damaged does not come at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import FeedError, InvalidEvent, SchemaMismatch, StoreFull
from eventlab.events.types import EventType, event_type
from eventlab.feeds import exports
from eventlab.interchange import pieces
from eventlab.interchange.protobuf import convert as protobuf
from eventlab.storage import operations as disk
from tests.events.strategies import same_bits
from tests.interchange.strategies import TYPES, ExchangedOrder, content, fill, steps

FORMS = ("log.pb", "log-parquet", "log-arrow")


def exported(lab: el.Lab, folder: Path, form: str, *what, **which) -> el.feeds.Feed:
    chosen = "arrow" if form == "log-arrow" else None
    lab.export(folder / form, *what, format=chosen, progress=False, **which)
    return el.feeds.exported(folder / form)


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def same(left: el.Lab, right: el.Lab) -> bool:
    ours, theirs = content(left), content(right)
    return ours.keys() == theirs.keys() and all(same_bits(ours[name], theirs[name]) for name in ours)


@contextmanager
def small_pieces() -> Iterator[None]:
    """Pieces and chunks so small that little data crosses many of their borders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "ROWS", 3)
        patch.setattr(pieces, "TEXT_BYTES", 20)
        patch.setattr(exports, "CHUNK_ROWS", 5)
        patch.setattr(exports, "_STREAM_ROWS", 3)
        yield


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25)
@given(made=steps())
def test_a_log_comes_back_whole(form, made):
    with small_pieces(), scratch() as folder, el.open(":memory:") as lab, el.open(":memory:") as other:
        fill(lab, made)
        receipt = other.ingest(exported(lab, folder, form), progress=False)
        assert receipt.count == lab.store.stop_position == other.store.stop_position
        assert same(lab, other)
        again = other.ingest(el.feeds.exported(folder / form), progress=False)
        assert (again.already, again.added) == (True, 0)
        assert other.store.stop_position == receipt.count
        assert other.verify().ok


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather", ".pb", ".binpb"])
@settings(max_examples=15)
@given(made=steps())
def test_one_type_and_its_causes(suffix, made):
    with small_pieces(), scratch() as folder, el.open(":memory:") as lab, el.open(":memory:") as other:
        fill(lab, made)
        declared = made[0][1]
        other.append("before", el.TradingSignal("BTC", "buy", 1.0, "s"))  # positions shift by one
        receipt = other.ingest(exported(lab, folder, f"one{suffix}", declared.cls), progress=False)
        before, after = content(lab)[declared.name], content(other)[declared.name].filter(pl.col("position") >= 1)
        places = {position: 1 + row for row, position in enumerate(before["position"])}
        assert after["position"].to_list() == list(places.values())
        assert after["cause"].to_list() == [places.get(cause) for cause in before["cause"]]
        lost = sum(cause is not None and cause not in places for cause in before["cause"])
        assert [text.split()[0] for text in receipt.report.warnings] == ([f"{lost}"] if lost else [])
        numbers = ("position", "version", "cause")
        assert same_bits(before.drop(numbers), after.drop(numbers))


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> tuple[el.Lab, Path]:
    """A small lab with several types, and all its exports."""
    folder = tmp_path_factory.mktemp("several")
    lab = el.open(":memory:")
    said = lab.append("s", el.TradingSignal("BTC", "buy", -0.0, "s"), timestamp=5, metadata={"who": "ü"}, event_id="x")
    lab.append("p", el.PortfolioChange("BTC", 5e-324, 0.1), timestamp=7, cause=said.position)
    lab.append("o", ExchangedOrder("BTC", "", -0.0, 2**63 - 1, None, "ü"), timestamp=8)
    for form in FORMS:
        exported(lab, folder, form)
    for name in ("trading_signal.parquet", "trading_signal.arrow"):
        lab.export(folder / name, el.TradingSignal, progress=False)
    yield lab, folder
    lab.close()


ONE_FILE = ("log.pb", "trading_signal.parquet", "trading_signal.arrow")
FILES = (
    *ONE_FILE, "log-parquet/manifest.json", "log-parquet/trading_signal.parquet", "log-arrow/exchanged_order.arrow",
)  # fmt: skip


def refused(path: Path) -> None:
    """Ingesting fails with one of our errors, and nothing was appended."""
    with el.open(":memory:") as other:
        with pytest.raises((FeedError, InvalidEvent, SchemaMismatch)):
            other.ingest(el.feeds.exported(path), progress=False)
        assert other.store.stop_position == 0


def _damaged(folder: Path, name: str, into: Path, change) -> Path:
    top, *inside = Path(name).parts
    if (folder / top).is_dir():
        shutil.copytree(folder / top, into / top)
    target = into / name
    target.write_bytes(change((folder / name).read_bytes()))
    assert inside or target == into / top
    return into / top


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=60)
@given(where=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_a_flipped_bit_anywhere_is_found_before_anything_is_appended(several, name, where, mask):
    def flip(data: bytes) -> bytes:
        at = int(where * len(data))
        return data[:at] + bytes((data[at] ^ mask,)) + data[at + 1 :]

    with scratch() as into:
        refused(_damaged(several[1], name, into, flip))


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=25)
@given(where=st.floats(0, 1, exclude_max=True))
@example(where=0.0)
def test_a_file_cut_off_anywhere_is_found(several, name, where):
    with scratch() as into:
        refused(_damaged(several[1], name, into, lambda data: data[: int(where * len(data))]))


def test_a_missing_or_swapped_file_of_a_folder_is_found(several, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(several[1] / "log-parquet", copy)
    (copy / "trading_signal.parquet").rename(tmp_path / "kept")
    refused(copy)
    shutil.copy(several[1] / "trading_signal.parquet", copy)  # as good a file, of another export
    other = el.open(":memory:")
    other.append("s", el.TradingSignal("BTC", "sell", 1.0, "s"))
    other.export(copy / "trading_signal.parquet", progress=False)
    refused(copy)


@pytest.mark.parametrize(
    "name", ["plain.parquet", "plain.arrow", "noise.parquet", "noise.arrow", "noise.pb", "empty.pb"]
)
def test_foreign_files_are_refused(tmp_path, name):
    path = tmp_path / name
    frame = pl.DataFrame({"symbol": ["A"], "price": [1.0]})
    if name.startswith("plain"):
        (frame.write_parquet if name.endswith("parquet") else frame.write_ipc)(path)
    else:
        path.write_bytes(b"" if name.startswith("empty") else bytes(range(256)) * 3)
    refused(path)


def test_another_programs_stream_is_taken(tmp_path):
    frame = pl.DataFrame({"aggregate_id": ["f"] * 3, "timestamp": [1, 2, 3], "symbol": "BTC", "rate": [0.1, 0.2, 0.3]})
    with (tmp_path / "theirs.pb").open("wb") as file:
        protobuf.dump([(el.Funding, frame)], file)
    with el.open(":memory:") as lab:
        assert lab.ingest(el.feeds.exported(tmp_path / "theirs.pb"), progress=False).count == 3
        assert lab.events(el.Funding)["rate"].to_list() == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("name", ["log.pb", "trading_signal.arrow", "log-parquet"])
def test_a_path_may_be_a_link(several, tmp_path, name):
    link = tmp_path / f"link-{name}"
    link.symlink_to(several[1] / name)
    feed = el.feeds.exported(link)
    with el.open(":memory:") as other:
        other.ingest(feed, progress=False)
        assert other.store.stop_position == (1 if name.startswith("trading") else 3)


def test_a_lab_does_not_take_its_own_events_again(several, tmp_path):
    with el.open(tmp_path / "lab") as lab:
        lab.append("own", el.TradingSignal("BTC", "sell", 1.0, "s"))
        lab.export(tmp_path / "own.pb", progress=False)
        with pytest.raises(FeedError, match="own"):
            lab.ingest(el.feeds.exported(tmp_path / "own.pb"), progress=False)
        assert lab.ingest(el.feeds.exported(several[1] / "log.pb"), progress=False).count == 3


@pytest.mark.parametrize("form", FORMS)
def test_a_process_that_never_declared_a_type_can_take_it(several, form, monkeypatch):
    from eventlab.events import types

    monkeypatch.delitem(types._registry, "exchanged_order")
    with el.open(":memory:") as other:
        other.ingest(el.feeds.exported(several[1] / form), progress=False)
        order = other.events("exchanged_order")
        assert (order["units"][0], order["side"][0], str(order["price"][0])) == (2**63 - 1, "ü", "-0.0")


def test_a_type_declared_with_other_fields_is_named(several, monkeypatch):
    from eventlab.events import types

    other = EventType("exchanged_order", event_type(el.Funding).fields, 3, object)
    monkeypatch.setitem(types._registry, "exchanged_order", other)
    for form in FORMS:
        feed = el.feeds.exported(several[1] / form)
        with el.open(":memory:") as lab, pytest.raises(SchemaMismatch, match="exchanged_order"):
            lab.ingest(feed, progress=False)


def test_parts_by_aggregate_and_time(several, tmp_path):
    lab, _ = several
    receipt = lab.export(tmp_path / "part.pb", None, "*", start="1970-01-01T00:00:00.000000006Z", progress=False)
    assert receipt.counts == {"portfolio_change": 1, "exchanged_order": 1}
    assert (receipt.count, receipt.format, receipt.stop_position) == (2, "protobuf", 3)
    assert receipt.bytes == (tmp_path / "part.pb").stat().st_size
    with el.open(":memory:") as other:
        done = other.ingest(el.feeds.exported(tmp_path / "part.pb"), progress=False)
        assert done.report.warnings == ("1 events have a cause that was not exported; it is dropped",)
        assert done.source == exporting_identity(receipt.sha256)


def exporting_identity(sha256: str) -> str:
    from eventlab.lab.ingest import source_identity

    class Named:
        name, params, content_sha256 = "exported", {}, sha256

    return source_identity(Named())


def test_what_cannot_be_exported_leaves_nothing(several, tmp_path):
    lab, _ = several
    for path, form, match in (
        ("several.parquet", None, "one type"), ("x.csv", None, "suffix"), ("x.pb", "parquet", "suffix"),
        ("folder", "protobuf", "suffix"), ("no/such/x.pb", None, "no such folder"), ("x.pb", "xml", "unknown format"),
    ):  # fmt: skip
        with pytest.raises(InvalidEvent, match=match):
            lab.export(tmp_path / path, format=form, progress=False)
    with pytest.raises(InvalidEvent, match="no event"):
        lab.export(tmp_path / "quotes.parquet", el.Quote, progress=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(InvalidEvent, match="something in it"):
        lab.export(tmp_path / "full", progress=False)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["full", "mine"]


@pytest.mark.parametrize("operation", ["sync", "sync_directory", "rename"])
@pytest.mark.parametrize("form", FORMS)
def test_a_disk_that_fails_leaves_what_was_there(several, tmp_path, monkeypatch, operation, form):
    lab, _ = several
    if form.endswith(".pb"):
        (tmp_path / form).write_bytes(b"before")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if operation != "sync_directory":  # the last one comes after the rename: then the new file is there, whole
        monkeypatch.setattr(disk, operation, fail)
        with pytest.raises(StoreFull, match="No space left"):
            exported(lab, tmp_path, form)
        assert [path.read_bytes() for path in tmp_path.iterdir()] == ([b"before"] if form.endswith(".pb") else [])
    monkeypatch.undo()
    exported(lab, tmp_path, form)
    assert [path.name for path in tmp_path.iterdir()] == [form]


@pytest.mark.parametrize("form", FORMS)
def test_an_interrupted_ingest_goes_on_where_it_stopped(tmp_path, form):
    lab, other = el.open(":memory:"), el.open(":memory:")
    for row in range(23):
        lab.append("ab"[row % 2], [TYPES[3]("BTC", 1.0, float(row))], cause=row // 2 if row else None, timestamp=row)
        lab.append("c", TYPES[2]("BTC", "buy", float(row), "s"), cause=2 * row, timestamp=row)
    with small_pieces():
        feed = exported(lab, tmp_path, form)
        some = _interrupted(other, feed)
        receipt = other.ingest(feed, progress=False)
    assert (receipt.count, receipt.added) == (46, 46 - some)
    assert same(lab, other)


def _interrupted(other: el.Lab, feed: el.feeds.Feed) -> int:
    commit, left = other.store.commit, [3]

    def stop_early(*arguments: object, **options: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return commit(*arguments, **options)

    other.store.commit = stop_early
    with pytest.raises(KeyboardInterrupt):
        other.ingest(feed, progress=False)
    del other.store.commit
    assert 0 < other.store.stop_position < 46
    return other.store.stop_position


def test_files_open_in_polars_and_duckdb_as_they_lie(several):
    import duckdb

    lab, folder = several
    wanted = content(lab)["exchanged_order"]
    path = folder / "log-parquet" / "exchanged_order.parquet"
    read = pl.read_parquet(path)
    assert same_bits(read.drop("recorded_at").cast(dict(wanted.schema)), wanted)
    row = duckdb.sql(f"SELECT units, side, note, epoch_ns(timestamp) FROM read_parquet('{path}')").fetchall()
    assert row == [(2**63 - 1, "ü", "", 8)]
    arrow = pl.read_ipc(folder / "log-arrow" / "exchanged_order.arrow")
    assert same_bits(arrow.drop("recorded_at").cast(dict(wanted.schema)), wanted)
    described = json.loads(pl.read_parquet_metadata(path)["eventlab"])
    assert described["store_id"] == lab.store.store_id
