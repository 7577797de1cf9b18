"""What words on the command line mean: moments, reducers, event types."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import typer

from eventlab.errors import EventlabError, ReducerError, UnknownEventType

if TYPE_CHECKING:
    from eventlab.events.types import EventType
    from eventlab.fold.declare.reducer import Reducer
    from eventlab.lab.lab import Lab
    from eventlab.timetravel.asof import AsOf

OWN_REDUCERS = {"trades": "Trades", "book": "OrderBook", "signals": "Signals", "portfolio": "Portfolio"}
"""Short names; the others go by their classes' names."""


@contextmanager
def reading(path: Path) -> Iterator[Lab]:
    """A lab opened to be read, with its own reducers declared so that their snapshots are known."""
    from eventlab import reducers
    from eventlab.lab.lab import open as open_lab

    reducers.declare()
    with open_lab(path, read_only=True) as lab:
        yield lab


@contextmanager
def writing(path: Path) -> Iterator[Lab]:
    """A lab that is there, opened to be appended to."""
    from eventlab import reducers
    from eventlab.lab.lab import open as open_lab

    reducers.declare()
    open_lab(path, read_only=True).close()  # what is not there is not made
    with open_lab(path) as lab:
        yield lab


def moment(
    as_of: str | None, version: int | None, time: str | None, position: int | None, known_at: str | None
) -> AsOf:
    """The moment that the options of `state` name."""
    from eventlab.timetravel.asof import AsOf

    if as_of is not None:
        if any(value is not None for value in (version, time, position)):
            raise typer.BadParameter("--as-of is a version or a time: leave out --version, --time and --position")
        read = read_moment(as_of)
        return read if known_at is None else AsOf(version=read.version, time=read.time, known_at=known_at)
    return AsOf(version=version, time=time, position=position, known_at=known_at)


def read_moment(text: str) -> AsOf:
    """A version where it is all digits, an event time otherwise."""
    from eventlab.timetravel.asof import as_of

    return as_of(int(text) if re.fullmatch(r"\d{1,19}", text.strip(), re.ASCII) else text)


def reducer(text: str) -> Reducer:
    """A reducer of eventlab's by its short name, or one of the user's as ``module:Name`` or ``file.py:Name``.

    Raises
    ------
    ReducerError
        Nothing of that name, or what was named fails to load or is no reducer.
    """
    from eventlab import reducers
    from eventlab.fold.declare.reducer import Reducer

    plain = text.lower().replace("_", "").replace("-", "")
    own = OWN_REDUCERS.get(plain) or {name.lower(): name for name in dir(reducers)}.get(plain)
    if own is not None:
        found = getattr(reducers, own)
    else:
        where, colon, name = text.rpartition(":")
        if not colon or not where or not name:
            known = " | ".join([*OWN_REDUCERS, *dir(reducers)])
            raise ReducerError(
                "no reducer of this name", got=text, expected=f"{known}, or your own as module:Name or file.py:Name"
            )
        found = getattr(_loaded(where), name, None)
        if found is None:
            raise ReducerError(f"{where} has no {name!r}", got=text, hint="Reducers are declared with @el.reducer.")
    if not isinstance(found, Reducer):
        raise ReducerError("not a reducer", got=text, hint="Decorate the class with @el.reducer.")
    return found


def _loaded(where: str) -> ModuleType:
    """The user's module. What goes wrong while it loads is the user's code's own failure, said as such."""
    try:
        if where.endswith(".py"):
            return _from_file(Path(where))
        if "" not in sys.path and str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))  # as `python -m` does; an installed command does not
        return importlib.import_module(where)
    except EventlabError:
        raise
    except Exception as error:
        raise ReducerError(f"{where} cannot be loaded", got=f"{type(error).__name__}: {error}") from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ReducerError("no such file", got=str(path))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ReducerError("not a Python file", got=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # declared classes look up their annotations there
    spec.loader.exec_module(module)
    return module


def stored_type(lab: Lab, text: str) -> EventType:
    """An event type of the store by its name, also as the class is written: MarketData for market_data."""
    from eventlab.store.catalog.schemas import meaning

    types = lab.store.types()
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text).lower()
    for name in (text, snake):
        if name in types:
            return meaning(name, types)
    raise UnknownEventType(
        "this lab has no events of the type", got=text, expected=", ".join(sorted(types)) or "nothing: it is empty"
    )


def listed(text: str | None) -> list[str] | None:
    """Comma-separated words."""
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def as_of_document(moment: AsOf) -> dict[str, Any]:
    """A moment as JSON has it."""
    from eventlab.runtime.terminal import iso

    return {
        "version": moment.version,
        "time": iso(moment.time_ns),
        "position": moment.position,
        "known_at": iso(moment.known_at_ns),
    }
