"""Slow, obvious twins of what eventlab does fast. Tests compare the two exactly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class NaiveEvent:
    """One event with its whole envelope; `payload` by field name."""

    position: int
    aggregate_id: str
    version: int
    timestamp: int
    event_type: str
    payload: dict[str, Any]
    cause: int | None = None
    metadata: dict[str, str] | None = None


@dataclass
class NaiveLog:
    """The log as a list of objects."""

    events: list[NaiveEvent] = field(default_factory=list)
    recorded_at: list[int] = field(default_factory=list)

    def head(self, aggregate_id: str) -> NaiveEvent | None:
        return next((event for event in reversed(self.events) if event.aggregate_id == aggregate_id), None)

    def append(
        self,
        rows: list[tuple[str, str, dict[str, Any]]],
        *,
        now: int,
        timestamps: list[int] | None = None,
        causes: list[int | None] | None = None,
        metadata: dict[str, str] | None = None,
        late: str = "reject",
    ) -> int | None:
        """Append (aggregate id, type name, payload) rows; returns how many came late, None where refused."""
        moment = max(now, self.recorded_at[-1] + 1) if self.recorded_at else now
        kept, came_late = list(self.events), 0
        for row, (aggregate_id, name, payload) in enumerate(rows):
            last = next((event for event in reversed(kept) if event.aggregate_id == aggregate_id), None)
            when = moment if timestamps is None else timestamps[row]
            highest = max((event.timestamp for event in kept if event.aggregate_id == aggregate_id), default=when)
            if when < highest:
                if timestamps is not None and late == "reject":
                    return None
                came_late += timestamps is not None
                if timestamps is None or late == "clamp":
                    when = highest
            cause = None if causes is None else causes[row]
            if cause is not None and cause >= len(kept):
                return None
            version = 1 if last is None else last.version + 1
            kept.append(NaiveEvent(len(kept), aggregate_id, version, when, name, payload, cause, metadata))
        self.recorded_at += [moment] * (len(kept) - len(self.events))
        self.events = kept
        return came_late
