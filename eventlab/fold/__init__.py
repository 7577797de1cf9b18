"""Folds: reducers declared as plain Python, run compiled or interpreted with the same bits."""
