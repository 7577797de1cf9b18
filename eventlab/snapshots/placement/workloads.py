"""How past states are asked for: which versions are read, how often, and in what order.

`density` says how often each version is read, for planning; `draw` gives a sequence of reads, for measuring.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from eventlab.errors import SnapshotError
from eventlab.events.arguments import checked_int
from eventlab.events.frame import Float64Array, Int64Array

__all__ = ["Drift", "Exponential", "HotSpots", "Recorded", "Scrubbing", "Uniform", "Workload", "Zipf"]


class Workload(ABC):
    """How past states of one aggregate are asked for."""

    __slots__ = ()

    @abstractmethod
    def density(self, head: int) -> Float64Array:
        """How often each version is read: float64, shape (head + 1,), summing to 1; version 0 never is."""

    def draw(self, head: int, reads: int, generator: np.random.Generator) -> Int64Array:
        """Versions in ``1..head``: int64, shape (reads,), in the order in which they are read."""
        cumulative = np.cumsum(self.density(head))
        drawn: Int64Array = np.searchsorted(cumulative, generator.random(reads) * cumulative[-1], side="right")
        return np.clip(drawn, 1, head)


def _by_version(weights: Float64Array) -> Float64Array:
    """Weights of versions 1, 2, …, as a density."""
    return np.concatenate([[0.0], weights / weights.sum()])


def _check_range(what: str, value: object, low: float, high: float = np.inf) -> None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and low < value <= high
    if not good:
        expected = f"above {low:g}" + ("" if high == np.inf else f", at most {high:g}")
        raise SnapshotError(f"{what} is out of range", got=value, expected=expected)


@dataclass(frozen=True, slots=True)
class Uniform(Workload):
    """All versions alike.

    Examples
    --------
    >>> Uniform().density(4).tolist()
    [0.0, 0.25, 0.25, 0.25, 0.25]
    """

    def density(self, head: int) -> Float64Array:
        return _by_version(np.ones(head))


@dataclass(frozen=True, slots=True)
class Zipf(Workload):
    """Recent versions most: the k-th from the end is read in proportion to ``1 / k**exponent``.

    Raises
    ------
    SnapshotError
        `exponent` is not above 0.

    Examples
    --------
    >>> Zipf(1.0).density(2).round(3).tolist()
    [0.0, 0.333, 0.667]
    """

    exponent: float = 1.0

    def __post_init__(self) -> None:
        _check_range("the exponent of Zipf", self.exponent, 0.0)

    def density(self, head: int) -> Float64Array:
        return _by_version(np.arange(head, 0, -1, dtype=np.float64) ** -self.exponent)


@dataclass(frozen=True, slots=True)
class Exponential(Workload):
    """Recent versions most: half as often for every `half_life` events back.

    Raises
    ------
    SnapshotError
        `half_life` is not above 0.

    Examples
    --------
    >>> Exponential(half_life=1).density(2).round(3).tolist()
    [0.0, 0.333, 0.667]
    """

    half_life: float = 10_000

    def __post_init__(self) -> None:
        _check_range("the half-life of Exponential", self.half_life, 0.0)

    def density(self, head: int) -> Float64Array:
        return _by_version(0.5 ** (np.arange(head - 1, -1, -1) / self.half_life))


@dataclass(frozen=True, slots=True)
class HotSpots(Workload):
    """A few stretches get most reads, the rest are spread over all versions.

    Parameters
    ----------
    count : int
        Stretches, at places drawn with `seed`.
    width : float
        Of each, as a part of the history.
    share : float
        Of all reads that go there.

    Raises
    ------
    SnapshotError
        A count below 1, or a width or share not in (0, 1].

    Examples
    --------
    >>> bool(HotSpots(count=1, width=0.1, share=0.9).density(1_000).max() > 5 / 1_000)
    True
    """

    count: int = 8
    width: float = 0.01
    share: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        checked_int("the count of HotSpots", self.count, 1, error=SnapshotError)
        _check_range("the width of HotSpots", self.width, 0.0, 1.0)
        _check_range("the share of HotSpots", self.share, 0.0, 1.0)
        checked_int("the seed of HotSpots", self.seed, 0, error=SnapshotError)

    def density(self, head: int) -> Float64Array:
        length = max(int(head * self.width), 1)
        starts = np.random.default_rng(self.seed).integers(0, max(head - length, 0), self.count, endpoint=True)
        hot = np.zeros(head + 1)
        np.add.at(hot, starts, 1.0)
        np.add.at(hot, starts + length, -1.0)
        hot = np.cumsum(hot)[:head]
        return _by_version(self.share * hot / hot.sum() + (1.0 - self.share) / head)


@dataclass(frozen=True, slots=True)
class Drift(Workload):
    """A window that moves through the history: reads begin at its start and end at its end.

    Parameters
    ----------
    width : float
        Of the window, as a part of the history; each read falls somewhere in it.

    Raises
    ------
    SnapshotError
        A width not in (0, 1].

    Examples
    --------
    >>> reads = Drift(0.1).draw(1_000, 100, np.random.default_rng(0))
    >>> bool(reads[:10].max() < reads[-10:].min())
    True
    """

    width: float = 0.1

    def __post_init__(self) -> None:
        _check_range("the width of Drift", self.width, 0.0, 1.0)

    def density(self, head: int) -> Float64Array:
        # The window's start is uniform over where it fits, and a read uniform in it: a trapezoid.
        length = max(int(head * self.width), 1)
        places = np.arange(head, dtype=np.float64)
        covering = np.minimum(np.minimum(places + 1, head - places), min(length, head - length + 1))
        return _by_version(covering)

    def draw(self, head: int, reads: int, generator: np.random.Generator) -> Int64Array:
        length = max(int(head * self.width), 1)
        starts = np.linspace(0, head - length, reads).astype(np.int64)
        return starts + generator.integers(0, length, reads) + 1


@dataclass(frozen=True, slots=True)
class Scrubbing(Uniform):
    """Sessions in a notebook: each begins at any version and goes back and forth by steps of up to `page` events.

    Its density is taken as uniform: where a session begins is, and it does not go far.

    Parameters
    ----------
    steps : int
        Reads of a session.
    page : int
        The farthest that a read is from the one before.

    Raises
    ------
    SnapshotError
        Steps or page below 1.

    Examples
    --------
    >>> reads = Scrubbing(steps=50, page=10).draw(100_000, 50, np.random.default_rng(0))
    >>> int(np.abs(np.diff(reads)).max()) <= 10
    True
    """

    steps: int = 50
    page: int = 1_000

    def __post_init__(self) -> None:
        checked_int("the steps of Scrubbing", self.steps, 1, error=SnapshotError)
        checked_int("the page of Scrubbing", self.page, 1, error=SnapshotError)

    def draw(self, head: int, reads: int, generator: np.random.Generator) -> Int64Array:
        sessions = -(-reads // self.steps)
        moves = generator.integers(-self.page, self.page, (sessions, self.steps), endpoint=True)
        moves[:, 0] = generator.integers(0, head, sessions)
        places = np.cumsum(moves, axis=1).ravel()[:reads] % (2 * head)  # reflected at both ends
        return np.where(places < head, places, 2 * head - 1 - places) + 1


@dataclass(frozen=True, slots=True, eq=False)
class Recorded(Workload):
    """Reads as they were recorded, scaled to the length of the history where it has grown since.

    Parameters
    ----------
    versions, heads : int64 array, shape (reads,)
        The version that each read asked for, and the last one at that time.
    smoothing : float
        The part of the density that is spread over all versions: what was never read may be read yet.

    Raises
    ------
    SnapshotError
        No reads, or versions beyond their heads.

    Examples
    --------
    >>> Recorded(np.array([5, 5, 10]), np.array([10, 10, 10]), smoothing=0.1).density(10).argmax()
    np.int64(5)
    """

    versions: Int64Array = field(repr=False)
    heads: Int64Array = field(repr=False)
    smoothing: float = 0.1

    def __post_init__(self) -> None:
        versions, heads = np.asarray(self.versions, np.int64), np.asarray(self.heads, np.int64)
        if versions.ndim != 1 or versions.shape != heads.shape or not len(versions):
            raise SnapshotError("recorded reads are a version and a head each", got=f"{len(versions)} reads")
        if (versions < 1).any() or (versions > heads).any():
            raise SnapshotError("a recorded read lies outside its history")
        _check_range("the smoothing of Recorded", self.smoothing, 0.0, 1.0)
        object.__setattr__(self, "versions", versions)
        object.__setattr__(self, "heads", heads)

    @staticmethod
    def of(frame: pl.DataFrame, aggregate_id: str, reducer: str | None = None) -> Recorded:
        """From `lab.read_log()`: the reads of one aggregate, by one reducer or by all.

        Parameters
        ----------
        frame : polars.DataFrame
            Columns reducer, aggregate_id, version, head: a row a read.
        aggregate_id : str
        reducer : str, optional
            Its name.

        Raises
        ------
        SnapshotError
            No such reads.

        Examples
        --------
        >>> import eventlab as el
        >>> lab = el.open(":memory:", record_reads=True)
        >>> receipt = lab.append("market/BTC", [el.MarketData("BTC", 100.0, 1.0)] * 3)
        >>> state = lab.state(el.Trades, "market/BTC", 2)
        >>> Recorded.of(lab.read_log(), "market/BTC").versions
        array([2])
        """
        rows = frame.filter(pl.col("aggregate_id") == aggregate_id, pl.col("version") > 0)
        if reducer is not None:
            rows = rows.filter(pl.col("reducer") == reducer)
        return Recorded(rows["version"].to_numpy(), rows["head"].to_numpy())

    def _scaled(self, head: int) -> Int64Array:
        return np.clip(np.rint(self.versions / self.heads * head), 1, head).astype(np.int64)

    def density(self, head: int) -> Float64Array:
        counts = np.bincount(self._scaled(head), minlength=head + 1)[1:].astype(np.float64)
        return _by_version((1.0 - self.smoothing) * counts / counts.sum() + self.smoothing / head)

    def draw(self, head: int, reads: int, generator: np.random.Generator) -> Int64Array:
        """The reads in their order, from a place drawn at random on, over again where more are wanted."""
        scaled = self._scaled(head)
        return np.resize(np.roll(scaled, -int(generator.integers(0, len(scaled)))), reads)
