"""Kernels that no reducer has a part in."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path

from eventlab.fold.native.cache import keep, kept, key_of
from eventlab.fold.native.call import Argument, Native, Types, types_of


class Function:
    """A kernel that no reducer has a part in: loaded or compiled when it is first called."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function
        self._native: dict[Types, Native] = {}
        # As it is loaded: it may be of another room, whose source is not part of every kernel's name.
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
        found = kept(key)
        if found is None:
            from eventlab.fold.native.codegen import compiled

            found, code = compiled(function, types)
            if code is not None:
                keep(key, code)
        return found
