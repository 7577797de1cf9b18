"""Text as interpreted handlers see it: with the operations of compiled text, and no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn


class PlainText(str):
    """Text can be compared with text, stored, and used as a key. All else that a string can do raises TypeError."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return str.__eq__(self, other)
        if other is None:
            return False
        raise TypeError(f"text is compared with {other!r}, which it can never equal")

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def __bool__(self) -> bool:
        return str.__len__(self) > 0

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return super().__getattribute__(name)
        raise TypeError(f"text has no .{name} in a handler")


def _refused(what: str) -> Callable[..., NoReturn]:
    def refuse(self: PlainText, *_: object) -> NoReturn:
        raise TypeError(f"text {what} in a handler")

    return refuse


for _names, _what in (
    (("add", "mul", "rmul", "mod", "rmod"), "has no arithmetic"),
    (("lt", "le", "gt", "ge"), "has no order"),
    (("getitem", "iter", "len", "contains"), "cannot be taken apart"),
):
    for _name in _names:
        setattr(PlainText, f"__{_name}__", _refused(_what))
