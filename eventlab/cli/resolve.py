"""Parses command line arguments: labs, moments, reducers, event types."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import typer

from eventlab.errors import EventlabError, ReducerError, UnknownEventType

if TYPE_CHECKING:
    from eventlab.events.types import EventType
    from eventlab.fold.declare.reducer import Reducer
    from eventlab.lab.lab import Lab
    from eventlab.timetravel.asof import AsOf

SHORT_NAMES = {"trades": "Trades", "book": "OrderBook", "signals": "Signals", "portfolio": "Portfolio"}
"""Short names of reducers; others go by their class name."""


@contextmanager
def existing_lab(path: Path, *, read_only: bool = True) -> Iterator[Lab]:
    """An existing lab, with the built-in reducers declared so that their snapshots are known."""
    from eventlab import reducers
    from eventlab.lab.open import open as open_lab

    reducers.declare()
    if not read_only:
        open_lab(path, read_only=True).close()  # does not create a lab
    with open_lab(path, read_only=read_only) as lab:
        yield lab


def moment(
    as_of: str | None, version: int | None, time: str | None, position: int | None, known_at: str | None
) -> AsOf:
    """The moment given by the options of `state`."""
    from eventlab.timetravel.asof import AsOf

    if as_of is not None:
        if any(value is not None for value in (version, time, position)):
            raise typer.BadParameter("--as-of excludes --version, --time and --position")
        parsed = parse_moment(as_of)
        return parsed if known_at is None else AsOf(version=parsed.version, time=parsed.time, known_at=known_at)
    return AsOf(version=version, time=time, position=position, known_at=known_at)


def parse_moment(text: str) -> AsOf:
    """A version if the text is all digits, else an event time."""
    from eventlab.timetravel.asof import as_of

    return as_of(int(text) if re.fullmatch(r"\d{1,19}", text.strip(), re.ASCII) else text)


def reducer(text: str) -> Reducer:
    """A built-in reducer by name, or a user's reducer as ``module:Name`` or ``file.py:Name``.

    Raises
    ------
    ReducerError
        No reducer of that name, or the module fails to load.
    """
    from eventlab import reducers
    from eventlab.fold.declare.reducer import Reducer

    plain = text.lower().replace("_", "").replace("-", "")
    builtin = SHORT_NAMES.get(plain) or {name.lower(): name for name in dir(reducers)}.get(plain)
    if builtin is not None:
        found = getattr(reducers, builtin)
    else:
        where, colon, name = text.rpartition(":")
        if not colon or not where or not name:
            known = " | ".join([*SHORT_NAMES, *dir(reducers)])
            raise ReducerError(
                "no reducer of this name", got=text, expected=f"{known}, or a reducer as module:Name or file.py:Name"
            )
        found = getattr(_loaded(where), name, None)
        if found is None:
            raise ReducerError(f"{where} has no {name!r}", got=text, hint="Declare reducers with @el.reducer.")
    if not isinstance(found, Reducer):
        raise ReducerError("not a reducer", got=text, hint="Decorate the class with @el.reducer.")
    return found


def _loaded(where: str) -> ModuleType:
    """The user's module. Any exception of its code becomes a ReducerError."""
    try:
        if where.endswith(".py"):
            return _from_file(Path(where))
        if "" not in sys.path and str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))  # like `python -m`; installed commands lack it
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
    sys.modules.setdefault(path.stem, module)  # annotations of its classes are resolved there
    spec.loader.exec_module(module)
    return module


def stored_type(lab: Lab, text: str) -> EventType:
    """An event type of the store by its name or class name, e.g. market_data or MarketData."""
    from eventlab.store.api import meaning

    types = lab.store.types()
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text).lower()
    for name in (text, snake):
        if name in types:
            return meaning(name, types)
    raise UnknownEventType(
        "the lab has no events of this type", got=text, expected=", ".join(sorted(types)) or "nothing: it is empty"
    )


def comma_separated(text: str | None) -> list[str] | None:
    """Split comma-separated words."""
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]
