"""Snapshots: states kept at chosen versions, derived and disposable."""

from eventlab.snapshots.policies import Every

__all__ = ["Every"]
