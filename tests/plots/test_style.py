from __future__ import annotations

from typing import Any

import matplotlib as mpl
from hypothesis import given
from hypothesis import strategies as st

from eventlab.plots import (
    style,
)


@given(st.text(max_size=80))
def test_no_text_is_mathematics(text):
    safe = style.safe(text)
    title: Any = mpl.text.Text(text=safe)
    shown, mathematics = title._preprocess_math(safe)
    assert not mathematics
    assert len(shown) <= style.LONGEST_NAME
    assert shown.isprintable()
    if text.isprintable() and len(text) <= style.LONGEST_NAME:
        assert shown == text
