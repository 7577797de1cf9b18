"""The common style of all charts: colours, axes, escaped text. Loads Matplotlib only when a chart is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from eventlab.errors import PlotError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.gridspec import GridSpecBase
    from matplotlib.text import Annotation

# Okabe & Ito's palette, which works with any colour vision, and in print by lightness.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
INK, MUTED, FAINT, LINES = "#22272E", "#5B6570", "#B4BCC6", "#E6E9ED"

FIGURE_WIDTH, FIGURE_HEIGHT = 9.0, 4.2
LONGEST_NAME = 60

_HALF_A_CHART = 52

# In points, for labels of size 9.
_LEGEND_ROW, _LEGEND_MARK, _LEGEND_LETTER = 14.0, 34.0, 4.7
_WIDENED = 1.1

_BINARY = ((30, "GiB"), (20, "MiB"), (10, "KiB"))

STYLE = Path(__file__).with_name("eventlab.mplstyle")


@contextmanager
def drawing(ax: Axes | None, height: float = FIGURE_HEIGHT) -> Iterator[Axes]:
    """The given axes or those of a new figure, with the common style set inside the context."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes

    if ax is not None and not isinstance(ax, Axes):
        raise PlotError("ax must be matplotlib axes", got=ax, hint="Omit it for a new figure.")
    # The first figure initializes the backend, which must happen outside rc_context to persist.
    new = (
        None if ax is not None else plt.figure(figsize=(FIGURE_WIDTH, height), layout="constrained", facecolor="white")
    )
    try:
        with mpl.rc_context(fname=STYLE):
            yield apply_style(new.subplots() if ax is None and new is not None else cast(Axes, ax))
    except BaseException:
        if new is not None:
            plt.close(new)
        raise


def apply_style(axes: Axes) -> Axes:
    """Apply the style to existing axes."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_tick_params(which="both", color=FAINT, labelcolor=MUTED, labelsize=9.0)
        axis.label.set(color=MUTED, fontsize=10.0)
    axes.grid(visible=True, axis="y", color=LINES, linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def panels(axes: Axes, *heights: float) -> list[Axes]:
    """Split axes into panels with a shared x axis; the first panel is `axes` itself."""
    place, figure, root = axes.get_subplotspec(), axes.get_figure(root=False), axes.get_figure(root=True)
    if figure is None or root is None:
        raise PlotError("ax has no figure", got=axes)
    grid: GridSpecBase
    if place is None:
        box = axes.get_position()
        grid = root.add_gridspec(
            len(heights), 1, height_ratios=heights, left=box.x0, right=box.x1, bottom=box.y0, top=box.y1
        )
    else:
        grid = place.subgridspec(len(heights), 1, height_ratios=heights, hspace=0.08)
    axes.set_subplotspec(grid[0])
    others = [apply_style(figure.add_subplot(grid[at], sharex=axes)) for at in range(1, len(heights))]
    for one in [axes, *others[:-1]]:
        one.tick_params(axis="x", which="both", labelbottom=False, length=0)
    return [axes, *others]


def safe(text: object) -> str:
    """Text from data for a chart: one line, bounded length, no math text."""
    plain = "".join(letter if letter.isprintable() else " " for letter in str(text))
    plain = plain if len(plain) <= LONGEST_NAME else plain[: LONGEST_NAME - 1] + "…"
    return plain.replace("$", r"\$")


def time_axis(axes: Axes) -> None:
    """A concise time axis in UTC."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=4, maxticks=9, tz="UTC")  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz="UTC"))  # type: ignore[no-untyped-call]
    axes.set_xlabel("time (UTC)")
    axes.margins(x=0.01)


def right_axis(axes: Axes, colour: str) -> Axes:
    """A second y axis on the right, with labels in the colour of its data."""
    other = apply_style(axes.twinx())
    other.grid(visible=False)
    other.spines["right"].set(visible=True, color=FAINT)
    other.tick_params(axis="y", labelcolor=colour)
    other.yaxis.label.set_color(colour)
    return other


def thousands(*axes: Axis) -> None:
    """Format axes with thousands separators and without offset."""
    from matplotlib.ticker import FuncFormatter

    for axis in axes:
        axis.set_major_formatter(FuncFormatter(_separated))


def bytes_y(axes: Axes) -> None:
    """Format the y axis as bytes in B, KiB, MiB or GiB, with round ticks."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    highest = axes.get_ylim()[1]
    unit, name = _binary_unit(highest)
    ticks = MaxNLocator(nbins=5, integer=unit == 1).tick_values(0.0, highest / unit)
    axes.set_yticks([tick * unit for tick in ticks if tick * unit <= highest])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / unit:,.6g} {name}"))


def _separated(value: float, _: object) -> str:
    return f"{value:,.10g}".replace("-", "\u2212")


def note(axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **style: Any) -> Annotation:
    """Write small text at an offset in points from a point, by default of the data."""
    return axes.annotate(text, at, xytext=offset, textcoords="offset points", fontsize=9.0, **{"color": MUTED, **style})


def label_point(axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float]) -> None:
    """Write text at an offset in points from a data point, with a white outline."""
    from matplotlib.patheffects import withStroke

    label = note(axes, text, at, offset, va="center", color=INK, zorder=4.0)
    label.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def fewer_ticks(axes: Axes, most: int = 6) -> None:
    """Limit the ticks of the x axis, for long numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=most))


def log_log(axes: Axes) -> None:
    """Make both axes logarithmic, with ticks at 1, 2 and 5 on the y axis."""
    from matplotlib.ticker import NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    thousands(axes.xaxis)
    log_y(axes)


def log_y(axes: Axes) -> None:
    """Make the y axis logarithmic, with ticks at 1, 2 and 5, and a grid of both axes."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    thousands(axes.yaxis)
    axes.grid(visible=True, axis="x", color=LINES, linewidth=0.8)


def log_bytes_x(axes: Axes, sizes: npt.NDArray[np.float64]) -> None:
    """Make the x axis logarithmic in bytes, with ticks at powers of two and a separate place for zeros."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    positive = sizes[sizes > 0.0]
    low, high = (float(positive.min()), float(positive.max())) if len(positive) else (1.0, 1.0)
    ticks = []
    if (sizes <= 0.0).any():
        axes.set_xscale("symlog", linthresh=low / 2.0, linscale=0.4)
        axes.set_xlim(-low / 16.0, high * 2.0)
        ticks.append(0.0)
    else:
        axes.set_xscale("log")
        axes.set_xlim(low / 2.0, high * 2.0)
    powers = [2.0**power for power in range(60) if low / 2.0 < 2.0**power <= high * 2.0]
    ticks += powers[:: -(-len(powers) // 8) or 1]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _in_bytes(value)))


def _binary_unit(value: float) -> tuple[int, str]:
    return next(((1 << shift, name) for shift, name in _BINARY if value >= 1 << shift), (1, "B"))


def _in_bytes(value: float) -> str:
    unit, name = _binary_unit(value)
    return f"{value / unit:,.6g} {name}" if value else "0"


def set_title(axes: Axes, title: str, *legend_of: Axes, columns: int | None = None) -> None:
    """Set a title, and below it a common legend of some axes, above the data; by default in as many columns as fit."""
    handles, labels = [], []
    for one in legend_of:
        more, names = one.get_legend_handles_labels()
        handles += more
        labels += names
    columns = _columns(axes, labels) if columns is None else columns
    axes.set_title(title, pad=10.0 + _LEGEND_ROW * -(-len(labels) // columns))
    if handles:
        axes.legend(
            handles, labels, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns, borderaxespad=0.2,
            borderpad=0.2, columnspacing=1.4, handlelength=1.6,
        )  # fmt: skip


def _columns(axes: Axes, labels: list[str]) -> int:
    """Number of legend columns that fit above the axes, which the layout makes slightly wider."""
    figure = axes.get_figure(root=True)
    room = _WIDENED * axes.bbox.width * 72.0 / (figure.dpi if figure is not None else 72.0)
    for columns in range(len(labels), 1, -1):
        rows = -(-len(labels) // columns)
        widest = [max(map(len, labels[at : at + rows])) for at in range(0, len(labels), rows)]
        if sum(_LEGEND_MARK + _LEGEND_LETTER * letters for letters in widest) <= room:
            return columns
    return 1


def abbreviate(name: str) -> str:
    """A name shortened in the middle to half the chart's width, since long names often differ at the end."""
    return safe(name if len(name) <= _HALF_A_CHART else f"{name[:30]}…{name[-(_HALF_A_CHART - 31) :]}")
