"""Experiments: what a choice costs, measured on one's own events."""

from eventlab.experiments.reconstruction import latency_by_length, snapshot_intervals

__all__ = ["latency_by_length", "snapshot_intervals"]
