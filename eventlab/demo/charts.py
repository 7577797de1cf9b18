"""Charts as inline SVG with the page's colours and font and without external references."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 8.6, 4.2
BOUGHT, SOLD, INK = "#009e73", "#d55e00", "#22272e"

# The plots' colours for a light background, and the page's variables, which follow light and dark mode.
_PAGE_COLOURS = {
    INK: "var(--ink)",
    "#5b6570": "var(--muted)",
    "#b4bcc6": "var(--faint)",
    "#e6e9ed": "var(--lines)",
    "#ffffff": "var(--page)",
    "#0072b2": "var(--blue)",
    "#009e73": "var(--green)",
}
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_NAMESPACE = re.compile(r'\sxmlns(?::\w+)?="[^"]*"')
_FONT = re.compile(r"font: (?P<before>[^;\"]*?)(?P<size>[\d.]+px)[^;\"]*")
_SIZE = re.compile(r'\s(?:width|height)="[\d.]+pt"')


def svg(draw: Callable[[Axes], object], name: str, *, height: float = HEIGHT) -> str:
    """Draw on the axes of a new figure, and return the chart as an SVG element.

    Parameters
    ----------
    draw : callable
        Takes the Axes.
    name : str
        Name of the chart, unique in its page, so that ids in the SVG are unique.
    height : float
        Height in inches; the width is 8.6.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.subplots())
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return inline(written.getvalue())


def inline(text: str) -> str:
    """A standalone SVG document as an inline element, without prolog, namespaces and fixed size."""
    text = _METADATA.sub("", text[text.index("<svg") :])
    head, close, rest = text.partition(">")
    head = _SIZE.sub("", _NAMESPACE.sub("", head)) + ' class="chart" aria-hidden="true"'
    rest = _FONT.sub(r"font: \g<before>\g<size> system-ui, sans-serif", rest)
    for ours, theirs in _PAGE_COLOURS.items():
        rest = re.sub(rf"((?:fill|stroke): ){ours}", rf"\g<1>{theirs}", rest, flags=re.IGNORECASE)
    return head + close + rest.strip()
