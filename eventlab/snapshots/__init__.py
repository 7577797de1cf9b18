"""Snapshots: states kept at chosen versions, derived and disposable; and the policies that choose them."""

from eventlab.snapshots.planned import CostOptimal
from eventlab.snapshots.policies import (
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
