"""How many examples a property test takes: few in every run, twenty times as many in the nightly one."""

from __future__ import annotations

from hypothesis import settings

_SCALE = settings.default.max_examples // 100 if settings.default is not None else 1


def examples(count: int) -> settings:
    """Settings with so many examples, and under the nightly profile with more in proportion."""
    return settings(max_examples=count * max(_SCALE, 1))
