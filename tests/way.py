"""Count the way of a call through the package's files: ``python tests/way.py state`` or ``python tests/way.py commit``.

A small lab is made, and `Lab.state` or `EventLog.commit` runs once under a profile. Each call from one file of the
package into another is a *stop*, counted once however often it is made; a stop in a file that the way has left before
is a *turn back*. Operators are not followed, and neither is what a fold does, nor what a commit's followers do. Set
``PYTHONPATH`` to count another checkout.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType

import eventlab as el

PACKAGE = Path(el.__file__).parent
NOT_FOLLOWED = {"Lab.state": ("fold", "reducers"), "EventLog.commit": ("fold", "reducers", "snapshots")}
"""Rooms whose own calls are left out, by where the way begins."""

DAY = 1_700_000_000_000_000_000


@dataclass
class Way:
    """The stops of one call, in the order in which they are first made."""

    root: str
    stops: list[tuple[str, str, bool]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    _seen: set[tuple[CodeType, CodeType]] = field(default_factory=set)
    _depth: int = 0

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Take in an event of `sys.setprofile`."""
        code = frame.f_code
        if code.co_qualname == self.root and event in ("call", "return"):
            self._depth += 1 if event == "call" else -1
            if event == "call" and not self.files:
                self.files.append(file_of(code))
        if event != "call" or not self._depth or not is_ours(code):
            return
        caller = frame.f_back
        while caller is not None and not is_ours(caller.f_code):
            caller = caller.f_back
        if caller is None or caller.f_code.co_filename == code.co_filename or code.co_qualname == self.root:
            return
        if (caller.f_code, code) in self._seen or file_of(caller.f_code).split("/")[0] in NOT_FOLLOWED[self.root]:
            return
        self._seen.add((caller.f_code, code))
        file = file_of(code)
        self.stops.append((name_of(caller.f_code), name_of(code), file in self.files))
        if file not in self.files:
            self.files.append(file)

    @property
    def turns_back(self) -> int:
        return sum(back for *_, back in self.stops)


def is_ours(code: CodeType) -> bool:
    """Whether code is of the package, and is called by name."""
    return code.co_filename.startswith(str(PACKAGE)) and not code.co_name.startswith(("__", "<module>"))


def file_of(code: CodeType) -> str:
    return str(Path(code.co_filename).relative_to(PACKAGE))


def name_of(code: CodeType) -> str:
    return f"{file_of(code)}:{code.co_qualname}"


def followed(root: str, action: Callable[[], object]) -> Way:
    """The way of the first call of `root` that `action` makes."""
    way = Way(root)
    sys.setprofile(way)
    try:
        action()
    finally:
        sys.setprofile(None)
    return way


def fills(count: int) -> list[el.PortfolioChange]:
    return [el.PortfolioChange("BTCUSDT", float(1 + n), 100.0 + n) for n in range(count)]


def way_of(what: str) -> Way:
    """The way of ``state`` or ``commit`` on a small lab that did the same before, for another aggregate."""
    with (
        tempfile.TemporaryDirectory() as folder,
        el.open(Path(folder) / "lab", clock=iter(range(DAY, DAY + 99)).__next__) as lab,
    ):
        for sealed in (True, False):
            for name in ("portfolio/warm", "portfolio/followed"):
                lab.append(name, fills(3))
            if sealed:
                lab.seal()
        if what == "state":
            lab.state(el.Portfolio, "portfolio/warm")
            return followed("Lab.state", lambda: lab.state(el.Portfolio, "portfolio/followed"))
        return followed("EventLog.commit", lambda: lab.append("portfolio/followed", fills(3)))


def main(what: str) -> None:
    way = way_of(what)
    for number, (caller, called, back) in enumerate(way.stops, 1):
        print(f"{number:3}  {caller}  ->  {called}{'  (turn back)' if back else ''}")
    print(f"{way.root}: {len(way.files)} files, {len(way.stops)} stops, {way.turns_back} turns back")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "state")
