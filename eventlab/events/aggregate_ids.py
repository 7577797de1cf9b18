"""Templates of aggregate ids, e.g. ``market/{symbol}``, and patterns that match ids, e.g. ``market/*``.

Filling a template only replaces text; nothing is evaluated.
"""

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
            Not a string, empty, an unknown placeholder, or an unmatched brace.
        """
        if not isinstance(text, str):
            raise FeedError("aggregate_id must be a string", got=text, expected="e.g. 'market/{symbol}'")
        return _parsed(text, allowed)

    def fill(self, values: Mapping[str, str]) -> str:
        """The aggregate id for one set of values. Braces inside a value are kept as they are."""
        return _PLACEHOLDER.sub(lambda match: values[match[1]], self.text)

    def column(self, frame: pl.DataFrame) -> pl.Series:
        """The aggregate id of each row, from the columns that the placeholders name.

        Returns
        -------
        polars.Series
            `aggregate_id`, String, one per row.
        """
        if not self.fields:
            return frame.select(aggregate_id=pl.repeat(self.text, pl.len()))["aggregate_id"]
        values = (pl.col(name).cast(pl.String) for name in self.fields)
        return frame.select(aggregate_id=pl.format(_PLACEHOLDER.sub("{}", self.text), *values))["aggregate_id"]


@lru_cache(maxsize=256)
def _parsed(text: str, allowed: tuple[str, ...]) -> Template:
    known = ", ".join(f"{{{name}}}" for name in allowed)
    if not text:
        raise FeedError("aggregate_id must not be empty", got=text, expected=f"e.g. 'market/{{symbol}}', from {known}")
    fields = tuple(_PLACEHOLDER.findall(text))
    for name in fields:
        if name not in allowed:
            raise FeedError(f"aggregate_id {text!r}: unknown placeholder", got=f"{{{name}}}", expected=known)
    if re.search(r"[{}]", _PLACEHOLDER.sub("", text)):
        raise FeedError(f"aggregate_id {text!r}: unmatched brace", expected=f"placeholders {known}")
    return Template(text, fields)


def matching(ids: Iterable[str], pattern: str) -> list[str]:
    """The ids that match a pattern in which ``*`` stands for any run of characters, sorted."""
    matches = re.compile(".*".join(re.escape(part) for part in pattern.split("*")), re.DOTALL).fullmatch
    return sorted(one for one in ids if matches(one))
