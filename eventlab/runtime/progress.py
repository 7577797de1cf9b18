"""The tqdm progress bar: a widget in notebooks with ipywidgets, text elsewhere."""

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    # tqdm warns once per process if ipywidgets is missing; the text bar is fine.
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
