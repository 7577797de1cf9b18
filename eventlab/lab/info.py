"""A summary of a lab, for a terminal and for a notebook."""

from __future__ import annotations

import html
from dataclasses import dataclass

from eventlab.store.api import EventReader

_SHOWN_TYPES = 20


@dataclass(frozen=True, slots=True)
class Info:
    """A summary of a store. `digest` is that of the last commit, hexadecimal; None for an empty store."""

    path: str
    store_id: str
    events: int
    commits: int
    aggregates: int
    event_types: tuple[str, ...]
    bytes: int
    digest: str | None

    def _rows(self) -> list[tuple[str, str]]:
        types = ", ".join(self.event_types[:_SHOWN_TYPES])
        more = len(self.event_types) - _SHOWN_TYPES
        each = f" ({self.bytes / self.events:.1f} an event)" if self.events else ""
        return [
            ("path", self.path if len(self.path) <= 200 else f"…{self.path[-199:]}"),
            ("store id", self.store_id),
            ("events", f"{self.events:,}"),
            ("commits", f"{self.commits:,}"),
            ("aggregates", f"{self.aggregates:,}"),
            ("event types", f"{types}, and {more} more" if more > 0 else types or "none"),
            ("bytes", f"{self.bytes:,}{each}"),
            ("head digest", self.digest or "none"),
        ]

    def __str__(self) -> str:
        return "\n".join(f"{label:<12} {value}" for label, value in self._rows())

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(label)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for label, value in self._rows()
        )
        return f"<table>{cells}</table>"


def info(store: EventReader) -> Info:
    """The summary of a store."""
    return Info(
        path=store.path,
        store_id=store.store_id,
        events=store.stop_position,
        commits=store.count_commits(),
        aggregates=store.count_aggregates(),
        event_types=tuple(sorted(store.types())),
        bytes=store.bytes_on_disk(),
        digest=store.head_digest,
    )
