"""A local directory passes the suite, follows no links, and loses nothing that was synced."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from eventlab.storage import operations as disk
from eventlab.storage.api import Storage
from eventlab.storage.local import LocalStorage
from eventlab.testing.storage import Crashes, CrashSuite, Opener, SharedStorageSuite, content_of
from tests.faults.injection import Layer, Moment, failure, layer
from tests.faults.power import Power, put, taken


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def faults() -> Iterator[Layer]:
    with layer() as made:
        yield made


class TestLocalStorage(SharedStorageSuite, CrashSuite):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> LocalStorage:
        return LocalStorage(tmp_path / "files")

    @pytest.fixture
    def opener(self, storage: LocalStorage) -> Opener:
        return partial(LocalStorage, storage.directory)

    @pytest.fixture
    def crashes(self, faults: Layer) -> Crashes:
        return partial(killed_at_every_step, faults)


def killed_at_every_step(
    faults: Layer, storage: LocalStorage, change: Callable[[Storage], None]
) -> Iterator[LocalStorage]:
    """The files of every moment, and what a power failure leaves of them then."""
    base = storage.directory
    images = []
    copy = base.with_name("copied")
    shutil.copytree(base, copy / "files")
    power = Power(copy)

    def look(moment: Moment) -> None:
        images.append(taken(copy))
        images.extend(power.images())

    faults.done = power.done
    with faults.armed(look):
        change(LocalStorage(copy / "files"))
    faults.done = None
    for number, image in enumerate(images):
        put(image, base.with_name(f"killed{number}"))
        yield LocalStorage(base.with_name(f"killed{number}") / "files")


@pytest.mark.parametrize("method", ["write", "create"])
def test_a_step_that_fails_leaves_nothing(tmp_path: Path, faults: Layer, method: str):
    storage = LocalStorage(tmp_path / "files")
    storage.write("old", [b"before"])
    with faults.armed(lambda moment: None) as met:
        getattr(storage, method)("new", [b"after"])
    storage.remove("new")
    steps = [moment for moment in met if moment.when != "after" and moment.name != "remove"]
    assert {"create", "write_at", "sync"} <= {moment.name for moment in steps}
    for step in steps:

        def fail(moment: Moment, step: Moment = step) -> None:
            if moment == step:
                raise failure(moment)

        with faults.armed(fail), pytest.raises(OSError, match="Input/output error"):
            getattr(storage, method)("new", [b"after"])
        assert [path.name for path in storage.directory.iterdir()] == ["old"]


def test_what_a_killed_writer_left_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    storage = LocalStorage(tmp_path / "files")
    storage.write("old", [b"before"])

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        for name in ("rename", "remove"):
            patched.setattr(disk, name, die)
        with pytest.raises(Killed):
            storage.write("new", [b"after"])
    (left,) = (path.name for path in storage.directory.iterdir() if path.name != "old")
    assert content_of(storage) == {"old": b"before"}
    for call in (storage.read, storage.remove):
        with pytest.raises(ValueError, match="name"):
            call(left)
    assert storage.sweep() == {left: 5}
    assert [path.name for path in storage.directory.iterdir()] == ["old"]


def test_links_are_not_followed(tmp_path: Path):
    storage = LocalStorage(tmp_path / "files")
    storage.write("one", [b"inside"])
    secret = tmp_path / "secret"
    secret.write_bytes(b"outside")
    (storage.directory / "link").symlink_to(secret)
    (storage.directory / "folder").mkdir()
    assert content_of(storage) == {"one": b"inside"}
    for read in (storage.read, lambda name: list(storage.ranges(name, [(0, 4)])), storage.arrow_file):
        with pytest.raises(OSError, match="symbolic link"):
            read("link")
    with pytest.raises(FileExistsError):
        storage.create("link", [b"new"])
    storage.write("link", [b"new"])  # in place of the link
    assert content_of(storage) == {"link": b"new", "one": b"inside"}
    assert secret.read_bytes() == b"outside"


def test_the_directory_is_made_when_something_is_written(tmp_path: Path):
    storage = LocalStorage(tmp_path / "files")
    assert not storage.list()
    storage.sync()
    assert not storage.directory.exists()
    storage.write("one", [b"x"])
    assert storage.directory.is_dir()
