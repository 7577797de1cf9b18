"""Snapshots: states kept at chosen versions, derived and disposable; and the policies that choose them."""

from eventlab.snapshots.policy.cost_based import CostOptimal
from eventlab.snapshots.policy.rules import (
    Every,
    EveryBytes,
    EveryTime,
    Exponential,
    Keep,
    MaxGap,
    OnRead,
    Policy,
    SlowerThan,
)

__all__ = [
    "CostOptimal",
    "Every",
    "EveryBytes",
    "EveryTime",
    "Exponential",
    "Keep",
    "MaxGap",
    "OnRead",
    "Policy",
    "SlowerThan",
]
