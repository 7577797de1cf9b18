"""Snapshots: states kept at chosen versions, derived and disposable; and the policies that choose them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
