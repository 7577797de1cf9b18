"""Experiments: measured costs of snapshot policies on the lab's own events."""

from eventlab.experiments.comparison import Comparison, compare, results
from eventlab.experiments.placement import Placements, placements
from eventlab.experiments.prediction import predicted_latencies
from eventlab.experiments.reconstruction import latency_by_length, snapshot_intervals
from eventlab.experiments.trials import SnapshotRead, SnapshotTrial

__all__ = [
    "Comparison",
    "Placements",
    "SnapshotRead",
    "SnapshotTrial",
    "compare",
    "latency_by_length",
    "placements",
    "predicted_latencies",
    "results",
    "snapshot_intervals",
]
