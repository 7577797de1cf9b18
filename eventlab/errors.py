"""Every error eventlab raises on purpose.

One base class, and a message of four parts: what was wrong, what was got, what was expected, and the usual fix.
"""

from __future__ import annotations

from typing import Any, Self

__all__ = [
    "AccessesDropped",
    "AsOfError",
    "BudgetTooSmall",
    "DamagedSegment",
    "DuplicateEvent",
    "EventlabError",
    "FeedError",
    "FoldError",
    "HandlerFailed",
    "InvalidEvent",
    "LateEvent",
    "MissingUpcaster",
    "NotAStore",
    "NotCompiled",
    "PlotError",
    "ReadOnlyStore",
    "ReducerError",
    "SchemaMismatch",
    "SequenceGap",
    "SnapshotError",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreTooNew",
    "UnknownAggregate",
    "UnknownEventType",
    "UpcastError",
    "WrongVersion",
]

_LONGEST_VALUE = 200


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("utf-8", "backslashreplace").decode()  # a lone surrogate cannot be printed
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


class EventlabError(Exception):
    """Base of all errors that eventlab raises on purpose.

    Parameters
    ----------
    what : str
        What was wrong, as a clause without a full stop.
    got, expected : object, optional
        The offending value and what would have been right; bounded in length when shown.
    hint : str, optional
        The usual fix.
    """

    def __init__(self, what: str, *, got: object = None, expected: object = None, hint: str | None = None) -> None:
        self.what, self.got, self.expected, self.hint = what, got, expected, hint
        parts = [what]
        if got is not None:
            parts.append(f"got {_shown(got)}")
        if expected is not None:
            parts.append(f"expected {_shown(expected)}")
        message = "; ".join(parts)
        super().__init__(f"{message}. {hint}" if hint else message)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.got, self.expected, self.hint)


def _rebuild(cls: type[EventlabError], what: str, got: object, expected: object, hint: str | None) -> EventlabError:
    return cls(what, got=got, expected=expected, hint=hint)


class InvalidEvent(EventlabError, ValueError):
    """A value, column or call argument that cannot become an event."""


class UnknownEventType(EventlabError, LookupError):
    """An event type that neither this process nor the store has declared."""


class SchemaMismatch(EventlabError):
    """An event type declared here differs from the one the store was written with."""


class MissingUpcaster(SchemaMismatch):
    """Events were stored by an older version of their type, and nothing says how they read as the declared one."""


class UpcastError(EventlabError):
    """An upcaster that cannot be declared, failed, or gave what its event type does not hold."""


class LateEvent(InvalidEvent):
    """An event time lower than one its aggregate already has."""

    row: int | None = None
    """Row of what was appended, from 0, where the error comes from an append."""


class WrongVersion(EventlabError):
    """`expected_version` did not match the aggregate's head."""


class DuplicateEvent(EventlabError):
    """An event id that is there already with other content, or twice in one call."""


class UnknownAggregate(EventlabError, LookupError):
    """No event was ever appended under this aggregate id."""

    @classmethod
    def named(
        cls, aggregate_id: object, hint: str = "lab.store.aggregate_ids() lists them; ids are case-sensitive."
    ) -> Self:
        """The error for one id."""
        return cls("no event was ever appended under this aggregate id", got=aggregate_id, hint=hint)


class AsOfError(EventlabError, ValueError):
    """A moment that cannot be read as one, or lies past what is recorded."""


class StoreError(EventlabError):
    """Base of what can go wrong with the store itself."""


class NotAStore(StoreError):
    """The path holds something that is not an eventlab store."""


class StoreTooNew(StoreError):
    """The store was written by a newer format than this eventlab reads."""


class StoreTooOld(StoreError):
    """The store was written in an older format than this eventlab reads."""


class StoreLocked(StoreError):
    """Another writer kept the store for longer than the waiting time."""


class StoreCorrupt(StoreError):
    """Bytes on disk that are not what was written."""

    report: Any = None
    """Where it comes from `verify`: a Report of all that is damaged, and of what was proved all the same."""


class StoreFull(StoreError):
    """The disk is full or a write failed; nothing of the commit was kept."""


class ReadOnlyStore(StoreError):
    """A write to a store that was opened to be read."""


class FeedError(EventlabError, ValueError):
    """A source file that cannot be read as the feed says: names file, row, column, value."""


class ReducerError(EventlabError, TypeError):
    """A reducer that cannot be declared or compiled; names the handler and its line."""


class FoldError(EventlabError):
    """A handler failed on an event; names reducer, aggregate and version."""


class SnapshotError(EventlabError):
    """A snapshot request that makes no sense, or a snapshot that cannot be read."""


class BudgetTooSmall(SnapshotError):
    """A storage budget that not even one snapshot fits into."""


class PlotError(EventlabError, ValueError):
    """Data that cannot be drawn: no rows, or not the columns that the chart shows."""


class AccessesDropped(UserWarning):
    """Warning: recorded reads could not be written, or read back, and are left out. Nothing else depends on them."""


class DamagedSegment(UserWarning):
    """Warning: a segment could not be rewritten, and is left as it is. `lab.verify()` names what is damaged."""


class HandlerFailed(UserWarning):
    """Warning: a handler registered with `lab.on` raised. The commit stands."""

    position: int | None = None
    """Of the first event of the frame it was called with: where to replay from."""


class SnapshotSkipped(UserWarning):
    """Warning: a snapshot could not be made. The append, or the answer, stands; says why."""


class NotCompiled(UserWarning):
    """Warning: a reducer cannot be compiled, and is folded as plain Python, which is right but slow. Says why."""


class SequenceGap(UserWarning):
    """Warning: trade or update ids in a source are not contiguous."""
