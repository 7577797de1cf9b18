"""When a snapshot is worth making, and how long it is worth keeping: small frozen objects that compose.

``a | b`` makes what either makes; ``a & b`` only what both would. ``Keep`` and ``MaxGap`` look at what the others
chose: ``Every(100) & Keep(last=3)``, ``Exponential() | MaxGap(10_000)``.
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
    """Decides at which versions of an aggregate a snapshot is made.

    One of one's own overrides `versions` at least.
    """

    __slots__ = ()

    on_read: ClassVar[bool] = False
    """Whether reads are looked at: `after_read` is asked only then."""

    def should_snapshot(self, version: int) -> bool:
        """Whether to make one at this version, of a history that ends there."""
        return version > 0 and version in self.versions(Past(version))

    def versions(self, past: Past) -> Int64Array:
        """All versions in ``(past.after, past.head]`` that should have one, ascending."""
        return _NONE

    def kept(self, past: Past, there: Int64Array) -> Int64Array:
        """Which of the snapshots that are there stay; all by default."""
        return there

    def after_read(self, read: Read) -> bool:
        """Whether to keep the state that was just reconstructed."""
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

    def kept(self, past: Past, there: Int64Array) -> Int64Array:
        return np.intersect1d(there, self.versions(Past(past.head)))


@dataclass(frozen=True, slots=True)
class Keep(Policy):
    """Of what the policies beside it make, only the last so many: ``Every(100) & Keep(last=3)``.

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

    def __post_init__(self) -> None:
        object.__setattr__(self, "last", _positive("Keep", self.last, "snapshots", 3))

    def kept(self, past: Past, there: Int64Array) -> Int64Array:
        return there[-self.last :]


@dataclass(frozen=True, slots=True)
class MaxGap(Policy):
    """At most `n` events from one snapshot to the next: it fills what the policies beside it leave open.

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

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", _positive("MaxGap", self.n, "events", 10_000))

    def versions(self, past: Past) -> Int64Array:
        return self.filled(past, _NONE)

    def filled(self, past: Past, chosen: Int64Array) -> Int64Array:
        """What was chosen, and every n-th event of what lies between."""
        begins = np.concatenate([[past.after], chosen])
        inside = (np.append(chosen, past.head + 1) - begins - 1) // self.n
        first = np.repeat(begins, inside)
        number = np.arange(len(first)) - np.repeat(np.cumsum(inside) - inside, inside) + 1
        return np.union1d(chosen, first + number * self.n)


@dataclass(frozen=True, slots=True, init=False)
class Either(Policy):
    """What any of several policies makes: ``a | b``."""

    policies: tuple[Policy, ...]

    def __init__(self, *policies: Policy) -> None:
        object.__setattr__(self, "policies", policies)

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.policies))

    @property
    def on_read(self) -> bool:  # type: ignore[override]
        return any(policy.on_read for policy in self.policies)

    def versions(self, past: Past) -> Int64Array:
        chosen = [policy.versions(past) for policy in self.policies if not isinstance(policy, MaxGap)]
        found = np.unique(np.concatenate([_NONE, *chosen]))
        for policy in self.policies:
            if isinstance(policy, MaxGap):
                found = policy.filled(past, found)
        return found

    def kept(self, past: Past, there: Int64Array) -> Int64Array:
        stays = [policy.kept(past, there) for policy in self.policies]
        if all(len(some) == len(there) for some in stays):
            return there
        thinned = [some for some in stays if len(some) < len(there)]
        return np.intersect1d(there, np.concatenate([*thinned, self.versions(past.whole)]))

    def after_read(self, read: Read) -> bool:
        return any(policy.after_read(read) for policy in self.policies if policy.on_read)


@dataclass(frozen=True, slots=True, init=False)
class Both(Policy):
    """What all of several policies make: ``a & b``."""

    policies: tuple[Policy, ...]

    def __init__(self, *policies: Policy) -> None:
        object.__setattr__(self, "policies", policies)

    def __repr__(self) -> str:
        return " & ".join(f"({p!r})" if isinstance(p, Either) else repr(p) for p in self.policies)

    @property
    def on_read(self) -> bool:  # type: ignore[override]
        return any(policy.on_read for policy in self.policies)

    def versions(self, past: Past) -> Int64Array:
        choosing = [policy for policy in self.policies if not isinstance(policy, Keep)]
        if not choosing or any(policy.on_read and not len(policy.versions(past)) for policy in choosing):
            return _NONE
        found = choosing[0].versions(past)
        for policy in choosing[1:]:
            found = np.intersect1d(found, policy.versions(past))
        for policy in self.policies:
            if isinstance(policy, Keep):
                found = policy.kept(past, found)
        return found

    def kept(self, past: Past, there: Int64Array) -> Int64Array:
        for policy in self.policies:
            there = policy.kept(past, there)
        return there

    def after_read(self, read: Read) -> bool:
        asked = [policy for policy in self.policies if not isinstance(policy, Keep)]
        return bool(asked) and all(
            read.version - read.base >= policy.n if isinstance(policy, MaxGap) else policy.after_read(read)
            for policy in asked
        )


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


def chosen(policy: Policy, past: Past) -> Int64Array:
    """The versions that a policy chooses, ascending.

    Raises
    ------
    SnapshotError
        It fails, or chooses what is no version behind ``past.after``, up to ``past.head``.
    """
    found = _asked(policy, lambda: _ascending(np.atleast_1d(policy.versions(past))))
    if not len(found):
        return _NONE
    if found.dtype.kind not in "iu" or found[0] <= past.after or found[-1] > past.head:
        raise SnapshotError(
            f"{policy!r} chose what is no version", got=found.tolist(),
            expected=f"integers from {past.after + 1} to {past.head}",
        )  # fmt: skip
    return found.astype(np.int64)


def kept(policy: Policy, past: Past, there: Int64Array) -> Int64Array:
    """Which of the snapshots that are there a policy lets stay. Raises SnapshotError where it fails."""
    return _asked(policy, lambda: _among(there, policy.kept(past, there)))


def wants(policy: Policy, read: Read) -> bool:
    """Whether a policy keeps what was read. Raises SnapshotError where it fails."""
    return _asked(policy, lambda: bool(policy.after_read(read)))


def _ascending(versions: Int64Array) -> Int64Array:
    return versions if (versions[1:] > versions[:-1]).all() else np.unique(versions)


def _among(there: Int64Array, kept: Int64Array) -> Int64Array:
    return there if kept is there else there[np.isin(there, kept)]


def _asked(policy: Policy, ask: Callable[[], T]) -> T:
    """What a policy answers. One of one's own may fail with anything: no append or read may."""
    try:
        return ask()
    except (EventlabError, OSError):
        raise
    except Exception as error:
        raise SnapshotError(f"{policy!r} failed with {type(error).__name__}: {error}") from error
