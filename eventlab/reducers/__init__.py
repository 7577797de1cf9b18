"""The reducers that come with eventlab: what a market, a book, signals and a portfolio add up to."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def declare() -> None:
    """Load all of them, so that snapshots made with one are known by its fingerprint."""
    for name in __all__:
        __getattr__(name)
