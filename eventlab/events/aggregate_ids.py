"""Aggregate ids as templates, ``market/{symbol}``, filled by plain text work, and patterns that match them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import polars as pl

from eventlab.errors import FeedError

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Template:
    """A checked aggregate id template.

    Examples
    --------
    >>> Template.parse("market/{symbol}").fill({"symbol": "BTCUSDT"})
    'market/BTCUSDT'
    """

    text: str
    fields: tuple[str, ...]

    @staticmethod
    def parse(text: str, allowed: tuple[str, ...] = ("symbol",)) -> Template:
        """Check a template.

        Raises
        ------
        FeedError
            Not text, empty, an unknown placeholder, or a brace that belongs to none.
        """
        if not isinstance(text, str):
            raise FeedError("aggregate_id must be a text", got=text, expected="e.g. 'market/{symbol}'")
        return _parsed(text, allowed)

    def fill(self, values: Mapping[str, str]) -> str:
        """The aggregate id of one set of values. A value is never itself read as a template."""
        return _PLACEHOLDER.sub(lambda match: values[match[1]], self.text)

    def column(self, frame: pl.DataFrame) -> pl.Series:
        """The aggregate id of each row, from the frame's columns named by the placeholders.

        Returns
        -------
        polars.Series
            `aggregate_id`, String, one per row.
        """
        parts: list[pl.Expr] = []
        for index, piece in enumerate(_PLACEHOLDER.split(self.text)):  # text, name, text, name, …, text
            if index % 2:
                parts.append(pl.col(piece).cast(pl.String))
            elif piece:
                parts.append(pl.lit(piece))
        return frame.select(
            pl.concat_str(parts).alias("aggregate_id") if self.fields
            else pl.repeat(self.text, pl.len()).alias("aggregate_id")
        )["aggregate_id"]  # fmt: skip


@lru_cache(maxsize=256)
def _parsed(text: str, allowed: tuple[str, ...]) -> Template:
    known = ", ".join(f"{{{name}}}" for name in allowed)
    if not text:
        raise FeedError("aggregate_id must be a text", got=text, expected=f"e.g. 'market/{{symbol}}', from {known}")
    fields = tuple(_PLACEHOLDER.findall(text))
    for name in fields:
        if name not in allowed:
            raise FeedError(f"aggregate_id {text!r}: unknown placeholder", got=f"{{{name}}}", expected=known)
    if re.search(r"[{}]", _PLACEHOLDER.sub("", text)):
        raise FeedError(f"aggregate_id {text!r}: a brace without its partner", expected=f"placeholders {known}")
    return Template(text, fields)


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """The ids that match a pattern in which ``*`` stands for any run of characters, sorted."""
    matches = re.compile(".*".join(re.escape(part) for part in pattern.split("*")), re.DOTALL).fullmatch
    return sorted(name for name in names if matches(name))
