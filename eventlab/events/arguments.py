"""Checks of arguments that several rooms take."""

from __future__ import annotations

import numpy as np

from eventlab.errors import EventlabError

MAX_INT64 = 2**63 - 1


def checked_int(what: str, value: object, least: int, most: int = MAX_INT64, *, error: type[EventlabError]) -> int:
    """An argument as an int. Raises `error` unless it is an integer, and no bool, from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        expected = f"{least} to {most}" if most < MAX_INT64 else f"at least {least} and below 2**63"
        raise error(f"{what} must be an integer", got=value, expected=expected)
    return int(value)
