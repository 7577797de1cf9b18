"""Charts of results. Each takes ``ax=None`` and returns the Axes; none opens a window or changes settings."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
