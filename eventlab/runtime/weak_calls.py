"""Callbacks that do not keep their object alive, so that what is dropped goes at once and not with the collector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakMethod


def weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """A bound method as a function; once the method's object is gone, it does nothing and returns None."""
    reference = WeakMethod(method)

    def call(*arguments: Any) -> Any:
        alive = reference()
        return None if alive is None else alive(*arguments)

    return call
