"""Where policies place snapshots in a history, beside how often its versions are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from eventlab.errors import SnapshotError
from eventlab.events.frame import Float64Array, Int64Array
from eventlab.experiments import asked
from eventlab.experiments.measuring import HasStore, Subject
from eventlab.fold.declare.reducer import ReducerLike, as_reducer
from eventlab.snapshots.placement.workloads import Workload
from eventlab.snapshots.policy import rules
from eventlab.snapshots.policy.cost_model import Model
from eventlab.snapshots.policy.history import Past
from eventlab.snapshots.policy.rules import Policy
from eventlab.timetravel.calibration import calibrated

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, eq=False)
class Placements:
    """Where snapshots of one aggregate would lie.

    Attributes
    ----------
    reducer, aggregate_id : str
    density : float64 array, shape (head + 1,)
        How often each version is read, with a sum of 1.
    versions : dict of str to int64 array
        Those with a snapshot, ascending, by the name of the policy.
    """

    reducer: str
    aggregate_id: str
    density: Float64Array
    versions: dict[str, Int64Array]

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}: {len(versions):,}" for name, versions in self.versions.items())
        return f"Placements of snapshots of {self.reducer} for {self.aggregate_id}: {counts}"

    def plot(self, ax: Axes | None = None) -> Axes:
        """The snapshots of each policy along the history, under the density of the reads."""
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
    """Where policies would place snapshots of a whole history; none is made.

    What a policy makes as states are read is not among them.

    Parameters
    ----------
    lab : Lab
    reducer : Reducer
    policies : sequence or mapping of str to Policy
        ``el.snapshots``; those of a sequence go by their repr.
    workload : Workload
        ``el.workloads``
    aggregate_id : str, optional
        The longest aggregate that has events the reducer handles, by default.

    Returns
    -------
    Placements

    Raises
    ------
    UnknownAggregate, ReducerError
    SnapshotError
        No policies, a name that is there twice, not a workload, a budget below one snapshot.

    Examples
    --------
    >>> import eventlab as el
    >>> lab = el.open(":memory:")
    >>> receipt = lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=1_000), progress=False)
    >>> placements(lab, el.Trades, [el.snapshots.Every(300)], el.workloads.Zipf()).versions
    {'Every(n=300)': array([300, 600, 900])}
    """
    chosen = asked.named("policy", policies, Policy)
    for policy in chosen.values():
        rules.check(policy)
    if not isinstance(workload, Workload):
        raise SnapshotError("not a workload", got=workload, expected="e.g. el.workloads.Uniform()")
    reducer = as_reducer(reducer)
    subject = Subject.of(lab, reducer, asked.longest(lab.store, reducer) if aggregate_id is None else aggregate_id)

    @cache  # measured where a policy asks for it, once
    def measure(aggregate: str) -> Model:
        return calibrated(lab.store, reducer, aggregate)

    (head,) = lab.store.heads([subject.aggregate_id])
    past = Past.of(lab.store, head, 0, lab.store.stop_position, measure)
    placed = {name: policy.retain(past, policy.versions(past)) for name, policy in chosen.items()}
    return Placements(reducer.name, subject.aggregate_id, workload.density(head.version), placed)
