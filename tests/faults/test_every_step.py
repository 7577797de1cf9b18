"""Every operation, failed, interrupted, killed and cut off from power at every one of its steps."""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventlab.errors import EventlabError
from eventlab.store.event_log import EventLog
from tests.faults.injection import Layer, Moment, failure, grows, layer
from tests.faults.power import Image, Power, put, taken, torn_wal
from tests.faults.world import (
    OPERATIONS,
    Content,
    Operation,
    Stage,
    check_content,
    check_image,
    check_reopened,
    check_tidy,
    go_on,
    opened,
)

DAILY = (
    "append", "append relaxed", "append a new type", "first append", "bulk append", "seal", "archive", "make a store",
    "open and sweep",
)  # fmt: skip
"""Between them these take every kind of step; nightly all operations are tried."""


@pytest.fixture(params=[pytest.param(name, marks=[] if name in DAILY else [pytest.mark.slow]) for name in OPERATIONS])
def operation(request: pytest.FixtureRequest) -> Operation:
    return OPERATIONS[request.param]


@pytest.fixture
def faults() -> Iterator[Layer]:
    with layer() as made:
        yield made


@pytest.fixture
def stage(operation: Operation, folder: Path) -> Stage:
    return Stage.of(operation, folder)


def moments_of(stage: Stage, faults: Layer, path: Path) -> list[Moment]:
    """What an undisturbed run meets."""
    store = stage.open(stage.copy(path))
    with faults.armed(lambda moment: None) as met:
        store = stage.run(path, store)
    assert met
    found = list(met)
    if not store.closed:
        check_content(store, stage.states[-1:])
        check_tidy(path, store)
        store.close()
    shutil.rmtree(path)
    return found


def hashed(image: Image) -> bytes:
    parts = [(name, content) for name, content in sorted(image.items()) if not name.endswith("-shm")]
    return hashlib.sha256(repr([(name, content and hashlib.sha256(content).digest()) for name, content in parts])
                          .encode()).digest()  # fmt: skip


def test_killed_or_without_power_at_every_step(stage: Stage, faults: Layer, folder: Path):
    """The files of every moment are opened by somebody else: what was acknowledged is there, nothing is half there."""
    path = stage.copy(folder / "lab")
    store = stage.open(path)
    power = Power(path)
    images: dict[tuple[bytes, int], tuple[str, Image]] = {}
    acknowledged = 0
    wal = path / "catalog.sqlite-wal"
    earlier: dict[str, bytes] = {}
    lost: Image = {}

    def keep(what: str, image: Image, done: int) -> None:
        images.setdefault((hashed(image), done), (what, image))

    def look(moment: Moment) -> None:
        if not path.exists():
            return
        now = taken(path)
        keep(f"killed at {moment}", now, acknowledged)
        for number, image in enumerate(power.images()):
            keep(f"without power at {moment}, {number}", image, floor())
        if moment.name == "COMMIT":
            if moment.when == "before":
                earlier["wal"] = wal.read_bytes() if wal.exists() else b""
                lost.clear()
                lost.update(now)
            else:
                for number, content in enumerate(torn_wal(earlier["wal"], wal.read_bytes())):
                    torn = {name: part for name, part in lost.items() if not name.endswith("-shm")}
                    keep(f"killed inside {moment}, {number}", torn | {wal.name: content}, acknowledged)

    def floor() -> int:
        return 0 if stage.operation.durability == "relaxed" else acknowledged

    def acknowledge() -> None:
        nonlocal acknowledged
        acknowledged += 1

    faults.done = power.done
    with faults.armed(look):
        store = stage.run(path, store, acknowledge)
    faults.done = None
    keep("killed at the end", taken(path), acknowledged)
    for number, image in enumerate(power.images()):
        keep(f"without power at the end, {number}", image, floor())
    store.close()
    for number, ((_, done), (what, image)) in enumerate(images.items()):
        put(image, folder / str(number))
        allowed = stage.states[done:] if what.startswith("without") else stage.states[done : done + 2]
        try:
            check_image(folder / str(number), allowed, may_be_absent=stage.is_new)
        except Exception as error:
            error.add_note(what)
            raise
        shutil.rmtree(folder / str(number))


@pytest.mark.parametrize("kind", ["fails", "interrupted"])
def test_failed_or_interrupted_at_every_step(stage: Stage, faults: Layer, folder: Path, kind: str):
    """One step fails: the caller is told, nothing of the commit is kept, and the same store goes on."""
    for moment in moments_of(stage, faults, folder / "undisturbed"):
        if kind == "fails" and not may_fail(moment):
            continue
        if kind == "interrupted" and moment.when == "before" and moment.number:
            continue  # as after the one before
        path = stage.copy(folder / f"{moment.number}")
        store = stage.open(path)
        acknowledged = 0

        def fail(now: Moment, wanted: Moment = moment) -> None:
            if now.number == wanted.number:
                raise KeyboardInterrupt if kind == "interrupted" else failure(now)

        def acknowledge() -> None:
            nonlocal acknowledged
            acknowledged += 1

        error: BaseException | None = None
        with faults.armed(fail):
            try:
                store = stage.run(path, store, acknowledge)
            except (EventlabError, KeyboardInterrupt) as raised:
                error = raised
        try:
            if kind == "interrupted":
                assert isinstance(error, KeyboardInterrupt) or error is None
            sure = kind == "fails" and error is not None and not (moment.name == "COMMIT" and moment.when == "after")
            allowed = stage.states[acknowledged : acknowledged + (1 if sure else 2)]
            goes_on(stage, path, store, allowed)
        except Exception as problem:
            problem.add_note(f"{kind} {moment}; told {error!r}")
            raise
        shutil.rmtree(path)


def may_fail(moment: Moment) -> bool:
    """Errors come instead of a step, or half-way through; a sync or a COMMIT may fail after all was done."""
    return moment.when != "after" or moment.name in ("sync", "sync_content", "sync_directory", "COMMIT")


def goes_on(stage: Stage, path: Path, store: EventLog | None, allowed: list[Content]) -> None:
    if store is not None and not store.closed:
        check_content(store, allowed)
        go_on(store)
        store.close()
        check_reopened(path)
    else:
        with opened(path) as again:
            check_content(again, allowed)
            check_tidy(path, again)
            go_on(again)
        check_reopened(path)


@pytest.mark.parametrize("kind", ["full", "broken"])
def test_nothing_more_can_be_written_from_any_step_on(stage: Stage, faults: Layer, folder: Path, kind: str):
    """A disk that stays full, or fails, until somebody mends it. Reading goes on meanwhile."""
    for moment in moments_of(stage, faults, folder / "undisturbed"):
        if moment.when != "before" or (kind == "full" and not moment.is_sql and moment.name not in GROWING):
            continue
        path = stage.copy(folder / f"{moment.number}")
        store = stage.open(path)
        acknowledged = 0

        def fail(now: Moment, wanted: Moment = moment) -> None:
            if now.number >= wanted.number and now.when == "before":
                if kind == "broken":
                    raise failure(now)
                if grows(now):
                    raise failure(now, errno.ENOSPC)

        def acknowledge() -> None:
            nonlocal acknowledged
            acknowledged += 1

        error: EventlabError | None = None
        with faults.armed(fail):
            try:
                store = stage.run(path, store, acknowledge)
            except EventlabError as raised:
                error = raised
            allowed = stage.states[acknowledged : acknowledged + (1 if kind == "full" and error else 2)]
            try:
                if store is not None and not store.closed:
                    check_content(store, allowed)
            except Exception as problem:
                problem.add_note(f"{kind} from {moment} on; told {error!r}")
                raise
        if store is not None and error is not None and "undoing" in error.what:
            store.close()  # as it says
        try:
            goes_on(stage, path, store, allowed)
        except Exception as problem:
            problem.add_note(f"{kind} from {moment} on; told {error!r}")
            raise
        shutil.rmtree(path)


GROWING = ("create", "allocate", "make_directory", "write_at")


def test_the_layer_sees_every_step(folder: Path, faults: Layer):
    """A bulk append meets the steps that its files need, in the order that makes it safe."""
    stage = Stage.of(OPERATIONS["bulk append"], folder)
    names = [moment.name for moment in moments_of(stage, faults, folder / "lab") if moment.when == "before"]
    begin, commit = names.index("BEGIN IMMEDIATE"), names.index("COMMIT")
    assert names[begin + 1 : commit].count("create") == 2
    assert names[begin + 1 : commit].count("sync") == 2
    assert names[commit - 2 : commit] == ["sync_directory", "sync_directory"]
