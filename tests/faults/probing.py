"""What a store says after its files were damaged: an error that names the damage, or the truth."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eventlab.errors import DamagedSegment, EventlabError, StoreCorrupt
from eventlab.store.api import Selection
from eventlab.store.event_log import EventLog
from eventlab.testing.events import folded
from tests.faults.world import Content, content_of, heads_of, opened


@dataclass
class Truth:
    """What an undamaged store answers."""

    content: Content
    answers: dict[str, Any]


@dataclass
class Probe:
    """What a damaged one said. `silent` are answers that were wrong without an error."""

    told: list[EventlabError]
    silent: list[str]
    verified: bool

    @property
    def is_honest(self) -> bool:
        return not self.silent


QUESTIONS: dict[str, Callable[[EventLog], Any]] = {
    "content": content_of,
    "heads": lambda store: store.heads(),
    "stop": lambda store: store.stop_position,
    "folded": lambda store: folded(store, Selection({}, others=True)),
    "one aggregate": lambda store: folded(store, Selection({"market_data": ["price"]}, aggregates=["market/BTC"])),
    "an id": lambda store: [store.find(name) is not None for name in ("bulk-3", "b", "e", "nobody")],
    "a chunk": lambda store: [store.chunk_receipt("source", chunk) for chunk in range(3)],
    "moments": lambda store: [store.position_at(head.timestamp) for head in store.heads()],
    "digest": lambda store: store.head_digest,
    "commits": lambda store: store.count_commits(),
}


def answers_of(store: EventLog) -> dict[str, Any]:
    return {name: ask(store) for name, ask in QUESTIONS.items()}


def truth_of(path: Path) -> Truth:
    with opened(path, read_only=True) as store:
        store.verify()
        return Truth(content_of(store), answers_of(store))


def probe(path: Path, truth: Truth, *, read_only: bool = True) -> Probe:
    """Ask a store everything. Errors of other kinds than eventlab's come through."""
    found = Probe([], [], verified=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedSegment)
        try:
            store = opened(path, read_only=read_only)
        except EventlabError as error:
            found.told.append(error)
            return found
        try:
            with store:
                for name, ask in QUESTIONS.items():
                    try:
                        if ask(store) != truth.answers[name]:
                            found.silent.append(name)
                    except EventlabError as error:
                        found.told.append(error)
                try:
                    store.verify()
                    found.verified = True
                except EventlabError as error:
                    found.told.append(error)
        except StoreCorrupt as error:  # it could not be closed
            found.told.append(error)
    return found


__all__ = ["QUESTIONS", "Probe", "Truth", "answers_of", "heads_of", "probe", "truth_of"]
