"""Kernels that belong to no reducer."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path

from eventlab.fold.native.cache import find, keep, key_of
from eventlab.fold.native.call import Argument, Native, Types, types_of


class Function:
    """A kernel that belongs to no reducer: loaded or compiled at its first call."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function
        self._native: dict[Types, Native] = {}
        # The function's file may be of another room, whose source is not part of every kernel's name.
        self._source = hashlib.sha256(Path(inspect.getfile(function)).read_bytes()).hexdigest()

    def __call__(self, *arguments: Argument) -> None:
        types = types_of(arguments)
        native = self._native.get(types)
        if native is None:
            native = self._native[types] = self._made(types)
        native(*arguments)

    def _made(self, types: Types) -> Native:
        function = self._function
        key = key_of([function.__module__, function.__qualname__, self._source], types)
        found = find(key)
        if found is None:
            from eventlab.fold.native.codegen import compiled

            found, code = compiled(function, types)
            if code is not None:
                keep(key, code)
        return found
