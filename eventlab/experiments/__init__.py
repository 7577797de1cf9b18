"""Experiments: measured costs of snapshot policies on the lab's own events."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
