"""Every error eventlab raises on purpose.

All derive from one base class. A message has four parts: what is wrong, what was given, what is expected, and the usual
fix.
"""

from __future__ import annotations

from typing import Any, Self

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
        What is wrong, as a clause without a full stop.
    got, expected : object, optional
        The value that was given and the values that are allowed; long ones are shortened in the message.
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
    """An event type that is neither declared in this process nor known to the store."""


class SchemaMismatch(EventlabError):
    """An event type declared here differs from the one the store was written with."""


class MissingUpcaster(SchemaMismatch):
    """Events were stored with an older version of their type, and no upcaster converts them to the declared one."""


class UpcastError(EventlabError):
    """An upcaster that cannot be declared, raised, or returned columns that its event type cannot hold."""


class LateEvent(InvalidEvent):
    """An event time before the last one of its aggregate."""

    row: int | None = None
    """Row in the append, from 0; None where the error does not come from an append."""


class WrongVersion(EventlabError):
    """`expected_version` did not match the aggregate's head."""


class DuplicateEvent(EventlabError):
    """An event id that the store already has with other content, or that one call gives twice."""


class UnknownAggregate(EventlabError, LookupError):
    """No event was appended under this aggregate id."""

    @classmethod
    def named(
        cls, aggregate_id: object, hint: str = "lab.store.aggregate_ids() lists them; ids are case-sensitive."
    ) -> Self:
        """The error for one id."""
        return cls("no event was ever appended under this aggregate id", got=aggregate_id, hint=hint)


class AsOfError(EventlabError, ValueError):
    """A moment that cannot be parsed, or that is after the last recorded event."""


class StoreError(EventlabError):
    """Base of errors of the store itself."""


class NotAStore(StoreError):
    """The path is not an eventlab store."""


class StoreTooNew(StoreError):
    """The store was written by a newer format than this eventlab reads."""


class StoreTooOld(StoreError):
    """The store was written in an older format than this eventlab reads."""


class StoreLocked(StoreError):
    """Another writer held the lock for longer than the timeout."""


class StoreCorrupt(StoreError):
    """Bytes on disk differ from what was written."""

    report: Any = None
    """Set by `verify`: a Report of everything damaged, and of what was proved intact."""


class StoreFull(StoreError):
    """The disk is full or a write failed; no part of the commit is in the store."""


class ReadOnlyStore(StoreError):
    """A write to a store that was opened read-only."""


class FeedError(EventlabError, ValueError):
    """A source file that the feed cannot parse; names file, row, column and value."""


class ReducerError(EventlabError, TypeError):
    """A reducer that cannot be declared or compiled; names the handler and its line."""


class FoldError(EventlabError):
    """A handler failed on an event; names reducer, aggregate and version."""


class SnapshotError(EventlabError):
    """Invalid arguments of a snapshot or an experiment, or a snapshot that cannot be read."""


class BudgetTooSmall(SnapshotError):
    """A storage budget smaller than one snapshot."""


class PlotError(EventlabError, ValueError):
    """Data that cannot be plotted: no rows, or a column that the chart needs is missing."""


class ReadsDropped(UserWarning):
    """Warning: recorded reads could not be written or read back, and are lost. Nothing else depends on them."""


class DamagedSegment(UserWarning):
    """Warning: a damaged segment could not be rewritten, and stays as it is. `lab.verify()` names the damage."""


class HandlerFailed(UserWarning):
    """Warning: a handler registered with `lab.on` raised. The commit stands."""

    position: int | None = None
    """Position of the first event of the frame it was called with, where a replay begins."""


class SnapshotSkipped(UserWarning):
    """Warning: a snapshot could not be made, and why. The append or read succeeded."""


class NotCompiled(UserWarning):
    """Warning: a reducer cannot be compiled, and why. It is interpreted in Python: correct, but slow."""


class SequenceGap(UserWarning):
    """Warning: trade or update ids in a source are not contiguous."""
