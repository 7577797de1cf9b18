"""Folds: reducers declared as plain Python, run compiled or interpreted with the same bits."""

from eventlab.fold.layout import Array, Keyed, Ladder, Queue, is_null
from eventlab.fold.declaration import Reducer, on, reducer

__all__ = ["Array", "Keyed", "Ladder", "Queue", "Reducer", "is_null", "on", "reducer"]
