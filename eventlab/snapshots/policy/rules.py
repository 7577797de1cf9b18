"""Policies: at which versions a snapshot is made, and how long it stays. Small frozen objects that compose.

``a | b`` makes what either makes; ``a & b`` only what both would. Every policy is also a filter of the versions that
the policies before it propose: with ``|`` it adds to them (`fill`), with ``&`` it takes some away (`limit`). Most do
this by what they would choose alone. ``MaxGap`` adds where the proposed versions leave a gap, and ``Keep`` leaves the
last of them: ``Exponential() | MaxGap(10_000)``, ``Every(100) & Keep(last=3)``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np

from eventlab.errors import EventlabError, SnapshotError
from eventlab.events.clock import duration_ns
from eventlab.events.frame import Int64Array
from eventlab.snapshots.policy.history import Past

T = TypeVar("T")

_NONE = np.empty(0, np.int64)
_WIDTH = 8
_MOST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Read:
    """A reconstruction that was just made.

    Attributes
    ----------
    version, base : int
        The version of the state, and of the snapshot that it began from; 0 for the beginning.
    seconds : float
        How long it took.
    """

    version: int
    base: int
    seconds: float


class Policy:
    """Decides at which versions of an aggregate a snapshot is made. A user's policy overrides `versions` at least."""

    __slots__ = ()

    on_read: ClassVar[bool] = False
    """Whether the policy looks at reads: only then `after_read` is called."""
    rank: ClassVar[int] = 0
    """Composed policies filter in the order of their ranks: those that look at what others propose come last."""

    def should_snapshot(self, version: int) -> bool:
        """Whether to make one at this version, of a history that ends there."""
        return version > 0 and version in self.versions(Past(version))

    def versions(self, past: Past) -> Int64Array:
        """All versions in ``(past.after, past.head]`` that should have one, ascending."""
        return _NONE

    def fill(self, past: Past, proposed: Int64Array) -> Int64Array:
        """The proposed versions and what this policy adds to them, ascending."""
        return np.union1d(proposed, self.versions(past))

    def limit(self, past: Past, proposed: Int64Array) -> Int64Array:
        """The proposed versions that this policy lets stand, ascending."""
        return np.intersect1d(proposed, self.versions(past))

    def retain(self, past: Past, stored: Int64Array) -> Int64Array:
        """The versions, of those that have a snapshot, whose snapshots stay; all by default."""
        return stored

    def after_read(self, read: Read) -> bool:
        """Whether the state that was just reconstructed becomes a snapshot."""
        return self.should_snapshot(read.version)

    def __or__(self, other: Policy) -> Policy:
        return Either(*_flat(Either, self, other))

    def __and__(self, other: Policy) -> Policy:
        return Both(*_flat(Both, self, other))


def _flat(kind: type[Either | Both], *policies: Policy) -> list[Policy]:
    parts: list[Policy] = []
    for policy in map(_policy, policies):
        parts += policy.policies if isinstance(policy, kind) else [policy]
    return parts


def _policy(given: object) -> Policy:
    if not isinstance(given, Policy):
        raise SnapshotError("not a snapshot policy", got=given, expected="e.g. el.snapshots.Every(100)")
    return given


def _positive(what: str, value: object, unit: str, example: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value <= _MOST:
        raise SnapshotError(
            f"{what} takes a positive number of {unit}, below 2**63", got=value, expected=f"e.g. {what}({example})"
        )
    return int(value)


@dataclass(frozen=True, slots=True)
class Every(Policy):
    """A snapshot every `n` events of an aggregate.

    Raises
    ------
    SnapshotError
        `n` is not a positive integer.

    Examples
    --------
    >>> Every(100).should_snapshot(200), Every(100).should_snapshot(0)
    (True, False)
    """

    n: int = 100

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", _positive("Every", self.n, "events", 100))

    def should_snapshot(self, version: int) -> bool:
        """True exactly at the positive multiples of `n`."""
        return version > 0 and version % self.n == 0

    def versions(self, past: Past) -> Int64Array:
        return np.arange(past.after // self.n + 1, past.head // self.n + 1, dtype=np.int64) * self.n


@dataclass(frozen=True, slots=True)
class EveryBytes(Policy):
    """A snapshot whenever so many bytes of events came since the one before.

    An event counts eight bytes for its version, position, timestamp, and each field of its type: what a fold reads of
    it, whatever it takes on disk.

    Parameters
    ----------
    size : int
        Bytes.

    Raises
    ------
    SnapshotError
        `size` is not a positive integer.

    Examples
    --------
    >>> EveryBytes(1_000_000)
    EveryBytes(size=1000000)
    """

    size: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", _positive("EveryBytes", self.size, "bytes", 1_000_000))

    def versions(self, past: Past) -> Int64Array:
        return np.flatnonzero(np.diff(past.bytes // self.size, prepend=0)) + max(past.after, 1)


@dataclass(frozen=True, slots=True)
class EveryTime(Policy):
    """A snapshot of the last event in each stretch of event time, once it is over. Stretches are aligned to the epoch.

    Parameters
    ----------
    duration : str or timedelta
        E.g. ``"1h"``.

    Raises
    ------
    AsOfError
        Not a duration above zero.

    Examples
    --------
    >>> EveryTime("1h")
    EveryTime(duration='1h')
    """

    duration: str | dt.timedelta

    def __post_init__(self) -> None:
        duration_ns(self.duration, what="EveryTime")

    def versions(self, past: Past) -> Int64Array:
        stretch = np.maximum.accumulate(past.timestamp) // duration_ns(self.duration, what="EveryTime")
        found = np.flatnonzero(np.diff(stretch)) + max(past.after, 1)
        return found[found > past.after]


@dataclass(frozen=True, slots=True)
class SlowerThan(Policy):
    """A snapshot of what took longer than this to reconstruct, as it is read.

    Parameters
    ----------
    duration : str or timedelta
        E.g. ``"5ms"``.

    Raises
    ------
    AsOfError
        Not a duration above zero.

    Examples
    --------
    >>> SlowerThan("5ms").after_read(Read(version=1_000, base=0, seconds=0.007))
    True
    """

    duration: str | dt.timedelta

    on_read: ClassVar[bool] = True

    def __post_init__(self) -> None:
        duration_ns(self.duration, what="SlowerThan")

    def after_read(self, read: Read) -> bool:
        return read.seconds * 1e9 > duration_ns(self.duration, what="SlowerThan")


@dataclass(frozen=True, slots=True)
class OnRead(Policy):
    """A snapshot of whatever is read, unless there is one.

    Examples
    --------
    >>> OnRead().after_read(Read(version=1_000, base=900, seconds=0.001))
    True
    """

    on_read: ClassVar[bool] = True

    def after_read(self, read: Read) -> bool:
        return read.version > read.base


@dataclass(frozen=True, slots=True)
class Exponential(Policy):
    """Dense at the recent end: gaps double with the distance from the last event, and older snapshots are thinned out.

    Level k has the multiples of ``unit * 2**k`` among the last ``8 * unit * 2**k`` events, so that a head of n has
    about ``4 * log2(n / unit)`` snapshots.

    Parameters
    ----------
    unit : int
        The smallest gap, in events.

    Raises
    ------
    SnapshotError
        `unit` is not a positive integer.

    Examples
    --------
    >>> len(Exponential(1_000).versions(Past(1_000_000)))
    35
    """

    unit: int = 1_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", _positive("Exponential", self.unit, "events", 1_000))

    def versions(self, past: Past) -> Int64Array:
        levels, gap = [_NONE], self.unit
        while gap <= past.head:
            last = past.head // gap
            levels.append(np.arange(max(last - _WIDTH, 0) + 1, last + 1, dtype=np.int64) * gap)
            gap *= 2
        found = np.unique(np.concatenate(levels))
        return found[found > past.after]

    def retain(self, past: Past, stored: Int64Array) -> Int64Array:
        return np.intersect1d(stored, self.versions(Past(past.head)))


@dataclass(frozen=True, slots=True)
class Keep(Policy):
    """The last so many of the snapshots that other policies make: ``Every(100) & Keep(last=3)``. Makes none itself.

    Raises
    ------
    SnapshotError
        `last` is not a positive integer.

    Examples
    --------
    >>> (Every(100) & Keep(last=2)).versions(Past(1_050)).tolist()
    [900, 1000]
    """

    last: int

    rank: ClassVar[int] = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "last", _positive("Keep", self.last, "snapshots", 3))

    def limit(self, past: Past, proposed: Int64Array) -> Int64Array:
        return proposed[-self.last :]

    def retain(self, past: Past, stored: Int64Array) -> Int64Array:
        return self.limit(past, stored)

    def after_read(self, read: Read) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class MaxGap(Policy):
    """At most `n` events from one snapshot to the next: fills the gaps that other policies leave.

    Raises
    ------
    SnapshotError
        `n` is not a positive integer.

    Examples
    --------
    >>> (Every(700) | MaxGap(300)).versions(Past(1_500)).tolist()
    [300, 600, 700, 1000, 1300, 1400]
    """

    n: int

    rank: ClassVar[int] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", _positive("MaxGap", self.n, "events", 10_000))

    def versions(self, past: Past) -> Int64Array:
        return self.fill(past, _NONE)

    def fill(self, past: Past, proposed: Int64Array) -> Int64Array:
        begins = np.concatenate([[past.after], proposed])
        inside = (np.append(proposed, past.head + 1) - begins - 1) // self.n  # versions to add in each gap
        first = np.repeat(begins, inside)
        number = np.arange(len(first)) - np.repeat(np.cumsum(inside) - inside, inside) + 1
        return np.union1d(proposed, first + number * self.n)

    def after_read(self, read: Read) -> bool:
        return read.version - read.base >= self.n


@dataclass(frozen=True, slots=True, init=False)
class _Composed(Policy):
    policies: tuple[Policy, ...]

    def __init__(self, *policies: Policy) -> None:
        object.__setattr__(self, "policies", policies)

    @property
    def on_read(self) -> bool:  # type: ignore[override]
        return any(policy.on_read for policy in self.policies)

    @property
    def _by_rank(self) -> list[Policy]:
        # Policies of reads propose nothing, and with & that spares the others' work.
        return sorted(self.policies, key=lambda policy: (policy.rank, not policy.on_read))


class Either(_Composed):
    """What any of several policies makes: ``a | b``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.policies))

    def versions(self, past: Past) -> Int64Array:
        proposed = _NONE
        for policy in self._by_rank:
            proposed = policy.fill(past, proposed)
        return proposed

    def retain(self, past: Past, stored: Int64Array) -> Int64Array:
        stays = [policy.retain(past, stored) for policy in self.policies]
        if all(len(some) == len(stored) for some in stays):
            return stored
        thinned = [some for some in stays if len(some) < len(stored)]
        return np.intersect1d(stored, np.concatenate([*thinned, self.versions(past.from_start)]))

    def after_read(self, read: Read) -> bool:
        return any(policy.after_read(read) for policy in self.policies if policy.on_read)


class Both(_Composed):
    """What all of several policies make: ``a & b``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return " & ".join(f"({p!r})" if isinstance(p, Either) else repr(p) for p in self.policies)

    def versions(self, past: Past) -> Int64Array:
        first, *others = self._by_rank
        proposed = first.versions(past)
        for policy in others:
            if len(proposed):
                proposed = policy.limit(past, proposed)
        return proposed

    def retain(self, past: Past, stored: Int64Array) -> Int64Array:
        for policy in self.policies:
            stored = policy.retain(past, stored)
        return stored

    def after_read(self, read: Read) -> bool:
        return all(policy.after_read(read) for policy in self.policies)


def check(given: object) -> Policy:
    """Raise SnapshotError for what is no policy, or one that never makes a snapshot."""
    policy = _policy(given)
    if _never(policy):
        raise SnapshotError(
            "a policy that never makes a snapshot",
            got=policy,
            expected="another beside it, e.g. Every(100) & Keep(last=3)",
            hint="One of your own says at which versions to make one: it overrides versions().",
        )
    return policy


def _never(policy: Policy) -> bool:
    if isinstance(policy, Either):
        return all(map(_never, policy.policies))
    if isinstance(policy, Both):
        choosing = [one for one in policy.policies if not isinstance(one, Keep)]
        return not choosing or any(map(_never, choosing))
    return type(policy).versions is Policy.versions and not policy.on_read


def choose(policy: Policy, past: Past) -> Int64Array:
    """The versions that a policy chooses, ascending.

    Raises
    ------
    SnapshotError
        The policy fails, or chooses something else than versions after ``past.after``, up to ``past.head``.
    """
    found = _guarded(policy, lambda: _ascending(np.atleast_1d(policy.versions(past))))
    if not len(found):
        return _NONE
    if found.dtype.kind not in "iu" or found[0] <= past.after or found[-1] > past.head:
        raise SnapshotError(
            f"{policy!r} chose what is no version", got=found.tolist(),
            expected=f"integers from {past.after + 1} to {past.head}",
        )  # fmt: skip
    return found.astype(np.int64)


def retain(policy: Policy, past: Past, stored: Int64Array) -> Int64Array:
    """The stored snapshots' versions that a policy retains. Raises SnapshotError where the policy fails."""
    return _guarded(policy, lambda: _among(stored, policy.retain(past, stored)))


def wants(policy: Policy, read: Read) -> bool:
    """Whether a policy wants a snapshot of what was read. Raises SnapshotError where the policy fails."""
    return _guarded(policy, lambda: bool(policy.after_read(read)))


def _ascending(versions: Int64Array) -> Int64Array:
    return versions if (versions[1:] > versions[:-1]).all() else np.unique(versions)


def _among(stored: Int64Array, retained: Int64Array) -> Int64Array:
    return stored if retained is stored else stored[np.isin(stored, retained)]


def _guarded(policy: Policy, answer: Callable[[], T]) -> T:
    """A policy's answer. A user's policy may raise any error, and none of them may fail an append or a read."""
    try:
        return answer()
    except (EventlabError, OSError):
        raise
    except Exception as error:
        raise SnapshotError(f"{policy!r} failed with {type(error).__name__}: {error}") from error
