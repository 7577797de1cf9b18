"""Small commits by their two ways: as rows past Arrow, and as columns. The same digests, bytes read back, and log."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings

from eventlab.errors import EventlabError
from eventlab.events.columns import metadata_json, payload_from_objects
from eventlab.events.rows import Row, rows_of
from eventlab.events.types import EventType
from eventlab.store.api import Batch
from eventlab.store.blocks import Block, decoded
from eventlab.store.commit import numbering
from eventlab.store.commit.validate import PendingHead, check_batches
from eventlab.store.event_log import EventLog
from eventlab.store.hash_chain import columns as chain
from eventlab.store.hash_chain import rows as row_chain
from eventlab.store.journal.columns_codec import from_blob, to_blob
from eventlab.store.journal.rows_codec import rows_blob, rows_block
from eventlab.store.read.frames import all_columns
from eventlab.store.types import NumberedRows
from eventlab.testing.events import CHANGE
from tests.events.strategies import NS, builtin_types, same_bits, user_types, values
from tests.events.strategies import TEXT as ANY_TEXT
from tests.events.test_rows import objects

METADATA = st.none() | st.dictionaries(ANY_TEXT, ANY_TEXT, min_size=1, max_size=2)


def shown(array: Any) -> Any:
    if array is None:
        return None
    if isinstance(array, np.ndarray):
        return array.tolist()
    if pa.types.is_dictionary(array.type):
        return decoded(array).to_pylist()
    if pa.types.is_floating(array.type) or pa.types.is_timestamp(array.type):
        return array.view(pa.int64()).to_pylist()
    return array.to_pylist()


def bits(block: Block) -> dict[str, Any]:
    """What a block holds; none at all is the same as nulls only."""
    cause = None if block.cause is None or (block.cause < 0).all() else np.maximum(block.cause, -1)
    fixed = {name: shown(getattr(block, name)) for name in ("position", "aggregate", "version", "timestamp")}
    texts = {name: shown(getattr(block, name)) for name in ("event_id", "metadata")}
    texts = {name: found if any(text is not None for text in found or ()) else None for name, found in texts.items()}
    return {
        **fixed, **texts, "cause": shown(cause), "types": {n: str(c.type) for n, c in block.columns.items()},
        "columns": {name: shown(column) for name, column in block.columns.items()},
    }  # fmt: skip


@st.composite
def drawn(draw: st.DrawFn, most: int) -> dict[str, Any]:
    declared: EventType = draw(builtin_types() | user_types())
    rows = draw(st.lists(st.tuples(*map(values, declared)), min_size=1, max_size=most))
    count = len(rows)
    cause = st.just(-1) | st.integers(0, 2**63 - 1)
    return {
        "declared": declared,
        "events": objects(declared, rows),
        "timestamps": sorted(draw(st.lists(NS, min_size=count, max_size=count))),
        "causes": draw(st.none() | st.lists(cause, min_size=count, max_size=count)),
        "metadata": metadata_json(draw(METADATA)),
        "first": draw(st.integers(0, 2**40)),
        "version": draw(st.integers(1, 2**40)),
        "aggregate": draw(st.integers(0, 2**31)),
        "recorded_at": draw(NS),
        "name": draw(ANY_TEXT.filter(bool)),
    }


def block_of(given: dict[str, Any]) -> Block:
    declared, count, first = given["declared"], len(given["events"]), given["first"]
    payload = payload_from_objects(declared, given["events"])
    text = given["metadata"]
    metadata = None
    if text is not None:
        metadata = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([text], pa.string()))
    causes = given["causes"]
    return Block(
        declared, np.arange(first, first + count), np.full(count, given["aggregate"]),
        np.arange(given["version"], given["version"] + count), np.array(given["timestamps"], dtype=np.int64),
        None if causes is None else np.array(causes, dtype=np.int64), None, metadata,
        dict(zip(payload.schema.names, payload.columns, strict=True)),
    )  # fmt: skip


def numbered(given: dict[str, Any], rows: Sequence[Row]) -> NumberedRows:
    return NumberedRows(
        given["declared"], 5, given["name"], given["aggregate"], rows, given["first"], given["version"],
        given["recorded_at"], given["timestamps"], given["causes"], given["metadata"],
    )  # fmt: skip


@given(drawn(most=10), st.binary(min_size=32, max_size=32))
def test_the_digest_of_rows_is_that_of_their_columns(given_: dict[str, Any], previous: bytes):
    declared, count = given_["declared"], len(given_["events"])
    rows = rows_of(declared, given_["events"])
    assert rows is not None
    quick = row_chain.digest(previous, numbered(given_, rows.values))
    leaves = chain.block_leaves(block_of(given_), given_["first"], count, lambda _: given_["name"])
    assert quick == chain.commit_digest(previous, given_["first"], count, given_["recorded_at"], leaves)


@given(st.data())
def test_blobs_of_rows_and_of_columns_give_the_same_block(data: st.DataObject):
    given_ = data.draw(drawn(most=10))
    declared = given_["declared"]
    rows = rows_of(declared, given_["events"])
    assert rows is not None
    block = block_of(given_)
    blob = rows_blob(numbered(given_, rows.values))
    expected = bits(block)
    assert bits(rows_block([(given_["first"], blob)], {5: declared})) == expected
    assert bits(from_blob(to_blob([(5, block)]), {5: declared})[5]) == expected
    both = rows_block([(given_["first"], blob), (given_["first"] + 50, blob)], {5: declared})
    assert bits(both.slice(0, len(block))) == expected
    assert shown(both.position[len(block) :]) == [position + 50 for position in expected["position"]]
    length = data.draw(st.integers(1, len(blob) - 1))
    with pytest.raises(EventlabError):
        rows_block([(given_["first"], blob[:length])], {5: declared})


@given(st.data())
def test_numbering_one_batch_of_one_aggregate_the_short_way(data: st.DataObject):
    count = data.draw(st.integers(1, 6))
    timed = data.draw(st.none() | st.lists(st.integers(0, 9), min_size=count, max_size=count))
    order = data.draw(st.none() | st.lists(st.integers(0, 9), min_size=count, max_size=count))
    version, clock = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 12))
    events = objects(CHANGE, [("BTC", float(n), 1.0, 0.0, "fill") for n in range(count)])
    made = []
    for short in (True, False):
        head = PendingHead(3, "a", version, version - 1, 4 if version else 0, None, is_new=not version)
        given_ = Batch(
            CHANGE, payload_from_objects(CHANGE, events), "a",
            timestamp=None if timed is None else np.array(timed), order=None if order is None else np.array(order),
            metadata={"k": "v"},
        )  # fmt: skip
        items, _ = check_batches([given_])
        if short:
            found = numbering._number_one(items[0], head, 7, clock)
            if found is None:
                return
        else:
            plainly = numbering._number_one
            numbering._number_one = lambda *_: None
            try:
                found = numbering.number_batches(items, [head], 7, clock, "reject")
            finally:
                numbering._number_one = plainly
        ends = (head.version, head.position, head.timestamp)
        made.append((bits(found.blocks[0]), found.first_position, found.last_version, found.late, ends))
    assert made[0] == made[1]


COMMITS = st.lists(
    st.tuples(drawn(most=4), st.sampled_from("ab"), st.integers(0, 3), st.booleans(), st.booleans()),
    min_size=1,
    max_size=4,
)


@given(COMMITS)
@settings(max_examples=12)
def test_a_store_fed_with_rows_and_one_fed_with_columns_are_one(commits: list[Any]):
    ticks = itertools.count(1_000, 3)
    now = {"at": 0}
    stores = [EventLog.open(":memory:", clock=lambda: now["at"]) for _ in range(2)]
    declared = {}
    for given_, name, step, timed, expecting in commits:
        kind = declared.setdefault(given_["declared"].name, given_["declared"])
        if kind is not given_["declared"]:
            continue
        now["at"] = next(ticks)
        receipts = []
        rows = rows_of(kind, given_["events"])
        assert rows is not None
        for store, payload in zip(stores, (rows, payload_from_objects(kind, given_["events"])), strict=True):
            stop = store.stop_position
            causes = given_["causes"]
            if causes is not None:
                causes = [cause % (stop + 1) - 1 if cause >= 0 else -1 for cause in causes]
            made = Batch(
                kind, payload, name,
                timestamp=None if not timed else np.arange(len(given_["events"])) + 900 + 40 * step,
                cause=None if causes is None else np.array(causes),
                metadata=None if given_["metadata"] is None else {"m": given_["metadata"]},
            )  # fmt: skip
            try:
                receipts.append(store.commit([made], expected={name: step} if expecting else None))
            except EventlabError as error:
                receipts.append((type(error), str(error)))
        assert receipts[0] == receipts[1]
        assert stores[0].head_digest == stores[1].head_digest
    for kind in declared.values():
        names = [name for name in all_columns(kind) if name != "event_id"]  # computed from the store's own id
        frames = [pl.concat(found) for store in stores if (found := list(store.rows(kind, columns=names)))]
        assert len(frames) in (0, 2)
        assert not frames or same_bits(*frames)
    for store in stores:
        store.verify()
        store.seal()
        store.verify()
        store.close()
