"""eventlab: a laboratory for event-sourced trading research.

``import eventlab as el`` loads next to nothing: ``__init__.pyi`` lists the names, and each is loaded when it is first
used.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
