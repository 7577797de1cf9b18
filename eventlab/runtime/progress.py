"""The progress bar: tqdm's, a widget in notebooks that have ipywidgets and text everywhere else."""

from __future__ import annotations

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    # It advises to install ipywidgets, once for every process; without them the bar is text, which is fine.
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
