"""A store and its naive twin under the same commands, the operations that are tried, and what must hold afterwards."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from eventlab.errors import NotAStore
from eventlab.store.api import Batch, Durability
from eventlab.store.commit import writer
from eventlab.store.event_log import EventLog
from eventlab.store.read.frames import all_columns
from eventlab.store.segments import encodings as encoding
from eventlab.testing.events import TYPES, batch, trade
from eventlab.testing.naive_log import NaiveLog

NOW = 1_704_067_200_000_000_000
BULK = 64

Row = tuple[Any, ...]
Content = tuple[Row, ...]
Rows = list[tuple[str, str, dict[str, Any]]]


@contextlib.contextmanager
def small_limits() -> Iterator[None]:
    """Bulk commits and row groups of few rows, so that small stores have all that large ones have."""
    saved = (writer.BULK_ROWS, encoding.ROW_GROUP, writer.UNSEALED_COMMITS)
    writer.BULK_ROWS, encoding.ROW_GROUP = BULK, 32
    try:
        yield
    finally:
        writer.BULK_ROWS, encoding.ROW_GROUP, writer.UNSEALED_COMMITS = saved


def opened(path: Path, *, read_only: bool = False, durability: Durability = "full") -> EventLog:
    """A store whose clock stands still."""
    return EventLog.open(path, clock=lambda: NOW, read_only=read_only, durability=durability, wait=0.0)


# -- content


def content_of(store: EventLog) -> Content:
    """Every event with all that is stored of it, in position order, as plain values."""
    rows: list[Row] = []
    for name, declared in store.types().items():
        columns = list(all_columns(declared))
        wanted = [column for column in columns if column not in ("event_id", "event_type")]
        for frame in store.rows(declared, columns=[*wanted, "event_id"]):
            plain = frame.with_columns(pl.col(pl.Datetime("ns", "UTC")).to_physical())
            payload = [field.name for field in declared]
            rows += [
                (
                    values["position"], values["aggregate_id"], values["version"], values["timestamp"], name,
                    tuple(repr(values[column]) for column in payload), values["cause"], values["metadata"],
                    values["recorded_at"], values["event_id"],
                )
                for values in plain.iter_rows(named=True)
            ]  # fmt: skip
    return tuple(sorted(rows))


def spelled(log: NaiveLog, ids: dict[int, str]) -> Content:
    """The naive log in the same form; ids nobody supplied are None."""
    return tuple(
        (
            event.position, event.aggregate_id, event.version, event.timestamp, event.event_type,
            tuple(repr(event.payload[each.name]) for each in TYPES[event.event_type]), event.cause,
            None if event.metadata is None else json.dumps(event.metadata, separators=(",", ":"), ensure_ascii=False),
            log.recorded_at[event.position], ids.get(event.position),
        )
        for event in log.events
    )  # fmt: skip


def same(found: Content, wanted: Content) -> bool:
    """Equal event for event; computed ids, which name the store, stand for None."""
    return len(found) == len(wanted) and all(
        one[:-1] == other[:-1] and (other[-1] is None or one[-1] == other[-1])
        for one, other in zip(found, wanted, strict=True)
    )


def heads_of(content: Content) -> list[tuple[Any, ...]]:
    heads: dict[str, tuple[Any, ...]] = {}
    for position, aggregate_id, version, timestamp, *_ in content:
        heads[aggregate_id] = (aggregate_id, version, position, timestamp)
    return [heads[name] for name in sorted(heads)]


# -- the twin


@dataclass
class Twin:
    """Gives the same commands to a store, where there is one, and to the naive log."""

    store: EventLog | None = None
    log: NaiveLog = field(default_factory=NaiveLog)
    ids: dict[int, str] = field(default_factory=dict)
    states: list[Content] = field(default_factory=list)
    acknowledged: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.states.append(self.content)

    @property
    def content(self) -> Content:
        return spelled(self.log, self.ids)

    def beside(self, store: EventLog | None) -> Twin:
        """A copy for another store with the same content."""
        return Twin(store, deepcopy(self.log), dict(self.ids))

    def append(
        self,
        rows: Rows,
        *,
        timestamps: list[int] | None = None,
        causes: list[int | None] | None = None,
        metadata: dict[str, str] | None = None,
        ids: list[str] | None = None,
        source: tuple[str, int] | None = None,
    ) -> None:
        """One commit."""
        first = len(self.log.events)
        clamped = self.log.append(rows, now=NOW, timestamps=timestamps, causes=causes, metadata=metadata)
        assert clamped is not None
        self.ids |= dict(enumerate(ids or (), first))
        self.states.append(self.content)
        if self.store is not None:
            receipt = self.store.commit(_batches(rows, timestamps, causes, metadata, ids), source=source)
            assert (receipt.first_position, receipt.count) == (first, len(rows))
        self.acknowledged()

    def does(self, action: Callable[[EventLog], object]) -> None:
        """Something that changes no event."""
        self.states.append(self.content)
        if self.store is not None:
            action(self.store)
        self.acknowledged()


def _batches(
    rows: Rows,
    timestamps: list[int] | None,
    causes: list[int | None] | None,
    metadata: dict[str, str] | None,
    ids: list[str] | None,
) -> list[Batch]:
    made = []
    for name in dict.fromkeys(name for _, name, _ in rows):
        at = [row for row, (_, kind, _) in enumerate(rows) if kind == name]
        names = [rows[row][0] for row in at]
        made.append(
            batch(
                [rows[row][2] for row in at],
                names[0] if len(set(names)) == 1 else names,
                kind=TYPES[name],
                timestamps=None if timestamps is None else [timestamps[row] for row in at],
                causes=None if causes is None else [causes[row] for row in at],
                ids=None if ids is None else [ids[row] for row in at],
                metadata=metadata,
                order=np.array(at) if len(at) < len(rows) else None,
            )
        )
    return made


def trades(count: int, aggregates: Sequence[str] = ("market/BTC",), start: float = 1.0) -> Rows:
    return [
        (aggregates[row % len(aggregates)], "market_data", trade(start + row / 8, trade_id=row)) for row in range(count)
    ]


def signal(aggregate_id: str = "signals/ü", action: str = "buy") -> tuple[str, str, dict[str, Any]]:
    return (aggregate_id, "trading_signal", {"symbol": "BTC", "action": action, "strength": -0.0, "strategy": "s"})


def change(aggregate_id: str = "portfolio/α") -> tuple[str, str, dict[str, Any]]:
    return (
        aggregate_id, "portfolio_change", {"symbol": "BTC", "quantity": 1.5, "price": 2.0, "fee": 0.1, "kind": "fill"}
    )  # fmt: skip


def history(twin: Twin) -> None:
    """A bulk commit and a sealed tail in segments, and a journal with something of everything."""
    twin.append(trades(80, ("market/BTC", "market/ETH", "market/SOL")), ids=[f"bulk-{row}" for row in range(80)])
    twin.append([signal(), *trades(2)], metadata={"run": "ü"})
    twin.append(trades(3), ids=["a", "b", "c"], source=("source", 0))
    twin.does(lambda store: store.seal())
    twin.append(trades(5))
    twin.append([signal(), *trades(2, ("market/new",)), signal()], causes=[0, 3, 4, 80], metadata={"k": "v"})
    twin.append(trades(2), ids=["d", "e"], source=("source", 1))


# -- operations


@dataclass(frozen=True)
class Operation:
    """Something that is failed, killed and cut off at every moment.

    `base` prepares a store, `run` is what is tried on it. Both get a twin, and acknowledge through it. `opens` is tried
    in place of `run` where opening is the operation.
    """

    base: Callable[[Twin], None]
    run: Callable[[Twin], None] | None = None
    opens: Callable[[Path], EventLog] | None = None
    litter: Callable[[Path], None] = lambda path: None
    durability: Durability = "full"
    tail_commits: int = 16_384


def _empty(twin: Twin) -> None:
    """No store at all."""


def _bare(twin: Twin) -> None:
    twin.does(lambda store: None)


def _litter(path: Path) -> None:
    for folder, names in (
        ("segments", ("0" * 16 + "-" + "f" * 16 + ".parquet", "0" * 16 + "-" + "e" * 16 + ".parquet")),
        ("journal", ("f" * 16 + ".journal",)),
    ):
        for name in names:
            (path / folder / name).write_bytes(b"half")


def _pieces(twin: Twin) -> None:
    """Eight small segments of two types, and one more commit."""
    for number in range(8):
        twin.append([*trades(BULK, (f"market/{number % 3}", "market/BTC")), signal()])
    twin.append(trades(1))


def _few_pieces(twin: Twin) -> None:
    """Two small segments of two types, and one more commit."""
    for number in range(2):
        twin.append([*trades(BULK, (f"market/{number}", "market/BTC")), signal()])
    twin.append(trades(1))


def _several(twin: Twin) -> None:
    for number in range(3):
        twin.append(trades(number + 1))


def _checkpoint(store: EventLog) -> None:
    store.checkpoints.save("p", "f", store.stop_position, memoryview(b"state"), had=False, discard=None, supersede=True)


OPERATIONS: dict[str, Operation] = {
    "append": Operation(history, lambda twin: twin.append(trades(1))),
    "append to a new aggregate": Operation(history, lambda twin: twin.append(trades(1, ("market/other",)))),
    "append several types": Operation(
        history, lambda twin: twin.append([signal(), *trades(1), signal("signals/2")], causes=[0, None, 90])
    ),
    "append to several aggregates": Operation(
        history, lambda twin: twin.append([*trades(3, ("x", "market/BTC", "y")), signal("x")], metadata={"a": "b"})
    ),
    "append a new type": Operation(history, lambda twin: twin.append([change()])),
    "append with ids": Operation(history, lambda twin: twin.append(trades(2), ids=["new-1", "new-2"])),
    "append a chunk": Operation(history, lambda twin: twin.append(trades(3), source=("source", 2))),
    "append a frame": Operation(history, lambda twin: twin.append(trades(20, ("market/BTC", "market/ETH")))),
    "append several times": Operation(history, _several),
    "append relaxed": Operation(history, _several, durability="relaxed"),
    "first append": Operation(_bare, lambda twin: twin.append(trades(1))),
    "first bulk append": Operation(_bare, lambda twin: twin.append(trades(BULK))),
    "bulk append": Operation(
        history,
        lambda twin: twin.append(
            [*trades(BULK, ("market/BTC", "bulk/1", "bulk/2")), change()],
            ids=[f"more-{row}" for row in range(BULK + 1)],
            source=("source", 2),
        ),
    ),
    "seal": Operation(history, lambda twin: twin.does(lambda store: store.seal())),
    "append that seals": Operation(history, lambda twin: twin.append(trades(1)), tail_commits=3),
    "seal that merges": Operation(_pieces, lambda twin: twin.does(lambda store: store.seal())),
    "append that seals and merges": Operation(_pieces, lambda twin: twin.append(trades(1)), tail_commits=1),
    "archive": Operation(_few_pieces, lambda twin: twin.does(lambda store: store.archive())),
    "vacuum": Operation(history, lambda twin: twin.does(lambda store: store.vacuum()), litter=_litter),
    "register": Operation(history, lambda twin: twin.does(lambda store: store.register(TYPES["portfolio_change"]))),
    "finish a source": Operation(
        history, lambda twin: twin.does(lambda store: store.finish_source("source", '{"events": 5}'))
    ),
    "save a checkpoint": Operation(history, lambda twin: twin.does(_checkpoint)),
    "close": Operation(history, lambda twin: twin.does(lambda store: store.close())),
    "make a store": Operation(_empty, opens=opened),
    "open and sweep": Operation(history, opens=opened, litter=_litter),
}


@dataclass
class Stage:
    """An operation ready to be tried: its base on disk, and the states that may be found."""

    operation: Operation
    base: Path
    before: Twin
    states: list[Content]
    """After 0, 1, … acknowledged steps."""

    @classmethod
    def of(cls, operation: Operation, folder: Path) -> Stage:
        base = folder / "base"
        twin = Twin()
        if operation.base is not _empty:
            with opened(base) as store:
                twin = Twin(store)
                operation.base(twin)
                twin = twin.beside(None)
            operation.litter(base)
        expected = twin.beside(None)
        if operation.run is not None:
            operation.run(expected)
        else:
            expected.does(lambda store: None)
        return cls(operation, base, twin, expected.states)

    @property
    def is_new(self) -> bool:
        """Whether there is no store before."""
        return not self.base.exists()

    def copy(self, path: Path) -> Path:
        if self.base.exists():
            shutil.copytree(self.base, path)
        return path

    def open(self, path: Path) -> EventLog | None:
        """The store to run on; None where the operation opens it by itself."""
        writer.UNSEALED_COMMITS = self.operation.tail_commits
        return None if self.operation.opens is not None else opened(path, durability=self.operation.durability)

    def run(self, path: Path, store: EventLog | None, acknowledged: Callable[[], None] = lambda: None) -> EventLog:
        """Run the operation; gives the store."""
        if self.operation.opens is not None:
            made = self.operation.opens(path)
            acknowledged()
            return made
        assert store is not None
        assert self.operation.run is not None
        twin = self.before.beside(store)
        twin.acknowledged = acknowledged
        self.operation.run(twin)
        return store


# -- what must hold


def check_image(path: Path, allowed: Sequence[Content], *, may_be_absent: bool = False) -> None:
    """Open what is left in a directory as a new process would; it holds one of the allowed states and goes on."""
    found: Content | None = None
    try:
        with opened(path, read_only=True) as store:
            found = check_content(store, allowed)
    except NotAStore:
        assert may_be_absent, "a store that was there is there"
    with opened(path) as store:
        if found is None:
            check_content(store, allowed)
        else:  # the same files, which were proved a moment ago
            assert same(content_of(store), found)
        check_tidy(path, store)
        go_on(store)
    check_reopened(path)


def check_content(store: EventLog, allowed: Sequence[Content]) -> Content:
    """The store is whole and has one of the allowed contents."""
    found = content_of(store)
    assert any(same(found, content) for content in allowed), (
        f"{len(found)} events, where {sorted({len(content) for content in allowed})} are allowed"
    )
    report = store.verify()
    assert report.events == store.stop_position == len(found)
    heads = [(head.aggregate_id, head.version, head.position, head.timestamp) for head in store.heads()]
    assert heads == heads_of(found)
    return found


def check_tidy(path: Path, store: EventLog) -> None:
    """No file is there that the catalog does not name."""
    named = {name for (name,) in store._catalog.execute("SELECT name FROM files")}
    journal = store._catalog.execute("SELECT value FROM meta WHERE key = 'journal'").fetchone()[0]
    assert {file.name for file in (path / "segments").glob("*")} == named
    assert {file.name for file in (path / "journal").glob("*")} == ({journal} if journal else set())


def go_on(store: EventLog) -> None:
    """Whatever happened, the log can be appended to and sealed; it is proved when it is reopened."""
    position = store.stop_position
    assert store.commit([batch(2, "after/α")]).first_position == position
    assert store.commit([batch([trade(1.0)] * BULK, "after/bulk")]).first_position == position + 2
    store.seal()
    assert store.stop_position == position + BULK + 2


def check_reopened(path: Path) -> None:
    with opened(path, read_only=True) as store:
        store.verify()
