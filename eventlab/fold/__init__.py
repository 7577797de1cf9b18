"""Folds: reducers declared as plain Python, run compiled or interpreted with the same bits."""

from eventlab.fold.declare.layout import Array, Keyed, Ladder, Queue, is_null
from eventlab.fold.declare.reducer import Reducer, on, reducer

__all__ = ["Array", "Keyed", "Ladder", "Queue", "Reducer", "is_null", "on", "reducer"]
