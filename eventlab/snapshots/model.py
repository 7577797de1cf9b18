"""What a reconstruction costs on this machine: measured, and then predicted.

    latency(s, v) = fixed + byte * size(s) + group * (row groups between, where they must be decoded) + event * (v - s)

`timetravel.calibration` measures. What its fit leaves over is kept: predicted percentiles are those of fit and rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from eventlab.events.frame import Int64Array
from eventlab.snapshots.optimum import Costs
from eventlab.store.decoded import MOST_GROUPS

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """What reading a state of a reducer costs, in seconds.

    Attributes
    ----------
    fixed, group, event, byte : float
        For every read; for each row group decoded; for each event folded; for each byte of the snapshot begun from.
    write : float
        To make a snapshot of a state in the pass of a fold, beyond the fold.
    rest : float64 array
        What was measured less what is predicted, of the reads that the model was fitted to.
    at, size : int64 array, float64 array
        Versions of the aggregate measured, and bytes of a snapshot at each.
    """

    fixed: float
    group: float
    event: float
    byte: float
    write: float
    rest: Float64Array = field(repr=False)
    at: Int64Array = field(repr=False)
    size: Float64Array = field(repr=False)

    def sizes(self, versions: Int64Array) -> Float64Array:
        """Bytes of a snapshot at each version, between and beyond those measured by interpolation."""
        found: Float64Array = np.interp(versions, self.at, self.size)
        return found

    def latencies(self, base: Int64Array, version: Int64Array, starts: Int64Array) -> Float64Array:
        """Expected seconds of reads of a version, each from a snapshot at its `base`, 0 for the beginning.

        `starts` are the versions at which row groups begin. Up to two groups are kept decoded by the store.
        """
        groups = np.searchsorted(starts, version, "right") - np.searchsorted(starts, base + 1, "right") + 1
        decoded = np.where((groups > MOST_GROUPS) & (version > base), groups, 0)
        sizes = np.where(base > 0, self.sizes(base), 0.0)
        return self.fixed + self.byte * sizes + self.group * decoded + self.event * (version - base)

    def quantiles(self, expected: Float64Array, q: tuple[float, ...]) -> list[float]:
        """Percentiles of measured latencies, where these are expected: each with all that was left over in fitting."""
        return np.quantile(np.add.outer(expected, self.rest), q).tolist()  # type: ignore[no-any-return]

    def costs(self, head: int, starts: Int64Array) -> Costs:
        """The costs of every version of a history, for planning; each row group between counts as decoded."""
        versions = np.arange(head + 1)
        groups = np.searchsorted(starts, versions, "right")  # the group of a version, from 1
        size = self.sizes(versions)
        replay = self.event * versions + self.group * groups
        before = self.event * versions + self.group * (np.searchsorted(starts, versions + 1, "right") - 1)
        restore = self.fixed + self.byte * size
        restore[0] = self.fixed
        return Costs(replay, before, restore, size, np.full(head + 1, self.write))

    def gap(self, seconds: float) -> int:
        """The most events between snapshots with which reads nearly never take longer; 1 where no gap is so small."""
        disturbed = float(np.quantile(self.rest, 0.99))
        spare = seconds - self.fixed - self.byte * float(self.size.max(initial=0.0)) - disturbed
        return max(int(spare / max(self.event, 1e-12)), 1)

    @property
    def balanced_gap(self) -> int:
        """The events that take as long to fold as the rest of a read."""
        rest = self.fixed + self.byte * float(self.size.max(initial=0.0))
        return int(rest / max(self.event, 1e-12))
