"""Folds: reducers declared as plain Python, run compiled or interpreted with the same bits."""

from eventlab.fold.declaration import Reducer, on, reducer
from eventlab.fold.layout import Array, Keyed, Ladder, Queue, is_null

__all__ = ["Array", "Keyed", "Ladder", "Queue", "Reducer", "is_null", "on", "reducer"]
