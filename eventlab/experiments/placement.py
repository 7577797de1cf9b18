"""Placement of snapshots by policies, compared with the density of reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from eventlab.events.frame import Float64Array, Int64Array
from eventlab.experiments import arguments
from eventlab.experiments.measurement import HasStore
from eventlab.fold.declare.reducer import ReducerLike
from eventlab.snapshots.placement.workloads import Workload
from eventlab.snapshots.policy.cost_model import Model
from eventlab.snapshots.policy.history import Past
from eventlab.snapshots.policy.rules import Policy
from eventlab.timetravel.calibration import calibrated

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, eq=False)
class Placements:
    """The versions at which policies would place snapshots of one aggregate.

    Attributes
    ----------
    reducer, aggregate_id : str
    density : float64 array, shape (head + 1,)
        The share of reads of each version.
    versions : dict of str to int64 array
        Versions with a snapshot, ascending, by policy.
    """

    reducer: str
    aggregate_id: str
    density: Float64Array
    versions: dict[str, Int64Array]

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}: {len(versions):,}" for name, versions in self.versions.items())
        return f"Placements of snapshots of {self.reducer} for {self.aggregate_id}: {counts}"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot the snapshots of each policy and the density of reads over the history."""
        from eventlab.plots import plot_placement

        return plot_placement(self.density, self.versions, ax=ax)


def placements(
    lab: HasStore,
    reducer: ReducerLike,
    policies: Sequence[Policy] | Mapping[str, Policy],
    workload: Workload,
    *,
    aggregate_id: str | None = None,
) -> Placements:
    """The versions at which policies would place snapshots of a full history. Makes no snapshots.

    Does not include snapshots that a policy makes when states are read.

    Parameters
    ----------
    lab : Lab
    reducer : Reducer
    policies : sequence or mapping of str to Policy
        ``el.snapshots``; those of a sequence go by their repr.
    workload : Workload
        ``el.workloads``
    aggregate_id : str, optional
        By default the longest aggregate with events that the reducer handles.

    Returns
    -------
    Placements

    Raises
    ------
    UnknownAggregate, ReducerError
    SnapshotError
        No policies, a duplicate name, not a workload, or a budget below one snapshot.

    Examples
    --------
    >>> import eventlab as el
    >>> lab = el.open(":memory:")
    >>> receipt = lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=1_000), progress=False)
    >>> placements(lab, el.Trades, [el.snapshots.Every(300)], el.workloads.Zipf()).versions
    {'Every(n=300)': array([300, 600, 900])}
    """
    chosen = arguments.policies(policies)
    arguments.check_workload(workload)
    subject = arguments.subject(lab, reducer, aggregate_id)
    reducer = subject.reducer

    @cache  # measured at most once, and only if a policy needs it
    def measure(aggregate: str) -> Model:
        return calibrated(lab.store, reducer, aggregate)

    (head,) = lab.store.heads([subject.aggregate_id])
    past = Past(head.version, 0, lab.store, head.aggregate_id, lab.store.stop_position, measure)
    placed = {name: policy.retain(past, policy.versions(past)) for name, policy in chosen.items()}
    return Placements(reducer.name, subject.aggregate_id, workload.density(head.version), placed)
