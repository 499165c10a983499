"""The figure of a curve: accuracy over one parameter, one line for each method, one panel for each data set and
model."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stages.common import methods
from stages.common.artifacts import UNTRAINED
from stages.report.curves import Point, order, shown
from stages.report.plots import INK, MUTED, title

WIDE, HIGH, GAP = 5.2, 3.4, 2.0
"""Size of a panel, and the space beside it for the names of the methods, in inches."""


def draw(points: list[Point], param: str) -> Figure:
    """Panels side by side; numbers are on a scale, everything else is evenly spaced in order of the values."""
    groups = list(dict.fromkeys((point.dataset, point.model) for point in points))
    total = len(groups) * (WIDE + GAP) - GAP
    figure = Figure(figsize=(total, HIGH))
    numeric = all(isinstance(point.value, int | float) for point in points)
    for number, (dataset, model) in enumerate(groups):
        axes = figure.add_axes((number * (WIDE + GAP) / total, 0, WIDE / total, 1))
        mine = [point for point in points if (point.dataset, point.model) == (dataset, model)]
        _draw_panel(axes, mine, param, numeric)
        untrained = any(point.note for point in mine)
        heading = f"{dataset} with {model}" + (f" — {UNTRAINED}" if untrained else "")
        title(axes, heading, f"top-1 over {param}", untrained=untrained)
    return figure


def _draw_panel(axes: Axes, points: list[Point], param: str, numeric: bool) -> None:
    values = sorted({shown(point.value): point.value for point in points}.values(), key=order)
    places = {shown(value): float(value) if numeric else float(at) for at, value in enumerate(values)}
    ends: list[tuple[float, str, str]] = []
    for method in dict.fromkeys(point.method for point in points):
        mine = [point for point in points if point.method == method]
        colour, style = next((one.style for one in methods.METHODS if one.name == method), (INK, "-"))
        x, y = [places[shown(point.value)] for point in mine], [point.top1 for point in mine]
        spread = [(point.high - point.low) / 2 for point in mine]
        bars = spread if any(spread) else None
        width = 2.2 if method == methods.FULL else 1.4
        axes.errorbar(
            x, y, yerr=bars, color=colour, linestyle=style, linewidth=width, marker="o", markersize=3.5, capsize=2.5
        )
        ends.append((y[-1], method, colour))
    axes.set_xticks(list(places.values()), list(places), fontsize=8.5, parse_math=False)
    if max(map(len, places)) > 10:
        axes.tick_params(axis="x", rotation=20)
    axes.set_xlabel(param, color=MUTED)
    axes.set_ylabel("top-1 accuracy (%)", color=MUTED)
    axes.tick_params(length=0, labelsize=8.5, colors=MUTED)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    _name_lines(axes, ends)


def _name_lines(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Write each method's name at the end of its line, moved apart if lines end close together."""
    low, high = axes.get_ylim()
    ends = sorted(ends)
    step, heights = 0.055 * (high - low), [y for y, _, _ in ends]
    # The mean of the least shift upwards and the least shift downwards: names stay `step` apart, around their lines.
    up, down = heights.copy(), heights.copy()
    for i in range(1, len(ends)):
        up[i] = max(up[i], up[i - 1] + step)
        down[-1 - i] = min(down[-1 - i], down[-i] - step)
    for (y, method, colour), above, below in zip(ends, up, down, strict=True):
        axes.annotate(
            method,
            (1, y),
            (10, 72 * HIGH * ((above + below) / 2 - y) / (high - low)),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=colour,
            fontweight="bold" if method == methods.FULL else "normal",
            parse_math=False,
        )
