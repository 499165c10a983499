"""Figures of a report: bars of the methods, and which classes get confused."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from stages.common.files import replacing
from stages.common.methods import ALL, REFINED, WHOLE
from stages.report.legible import make_legible
from stages.report.table import Result, Row

INK, MUTED, WARNING = "#222222", "#6b6b6b", "#c0392b"
COLOURS = {WHOLE: "#b3b9c4", ALL: "#7fbfb5", REFINED: "#1f7a6d"}
"""Grey for the whole image, greens for crops: the deeper, the more refined."""

GUESSABLE = 50
"""With more classes than this, guessing is too close to zero to be drawn."""
VISIBLE = 0.05
"""Points between top-1 and the mean per class that are worth a mark."""
LONGEST_NAME = 32
"""Characters of a class name beside a confusion matrix; the middle of longer ones is left out."""
COUNTED = 15
"""Confusion matrices of at most so many classes have their counts written in."""


def save(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write a figure as PNG, whole or not at all; the same figure gives the same bytes."""
    FigureCanvasAgg(figure)
    make_legible(figure)
    with replacing(path) as temporary:
        # Without matplotlib's version, the file does not depend on the machine.
        figure.savefig(
            temporary,
            format="png",
            dpi=dpi,
            facecolor="white",
            bbox_inches="tight",
            pad_inches=0.12,
            metadata={"Software": None},
        )


def shortened(text: str, width: int) -> str:
    """`text` without its middle if it is wider than `width` letters; a wide character, such as 鶴, counts two."""
    widths = [2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text]
    if sum(widths) <= width:
        return text
    half = (width - 1) // 2
    first, last = (bisect_right(list(accumulate(side)), half) for side in (widths, widths[::-1]))
    return f"{text[:first]}…{text[len(text) - last :]}"


def title(axes: Axes, text: str, below: str, *, untrained: bool) -> None:
    """A title in two lines at the left edge, in the colour of a warning where the weights are random."""
    colour = WARNING if untrained else INK
    options: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "parse_math": False}
    axes.annotate(text, (0, 1), (0, 22), color=colour, fontsize=11, fontweight="bold", **options)
    axes.annotate(below, (0, 1), (0, 8), color=MUTED, fontsize=8.5, **options)


def method_table(text: str, *, untrained: bool) -> Figure:
    """The table as it is printed, for the page of plots; its first line is the title."""
    lines = text.splitlines()
    height = 0.2 * len(lines)
    figure = Figure(figsize=(0.092 * max(map(len, lines)), height))
    options: dict[str, Any] = {"family": "monospace", "fontsize": 10, "va": "top", "parse_math": False}
    for number, line in enumerate(lines):
        heading = number == 0
        colour = WARNING if heading and untrained else INK
        weight = "bold" if heading else "normal"
        figure.text(0, 1 - number / len(lines), line, color=colour, weight=weight, **options)
    return figure


def method_bars(result: Result, classes: int) -> Figure:
    """Horizontal bars of top-1 in the order of the table, with one standard deviation where there are runs.

    Args:
        classes: how many there are; guessing is right once in this many times.
    """
    rows = result.rows
    figure = Figure(figsize=(6.4, 0.33 * len(rows)))
    axes = figure.add_axes((0, 0, 1, 1))
    heights = np.arange(len(rows))
    # Where classes have the same number of images, both are the same figure.
    uneven = any(row.mean_per_class is not None and abs(row.mean_per_class - row.top1) > VISIBLE for row in rows)
    colours = [COLOURS.get(row.views, COLOURS[WHOLE]) for row in rows]
    axes.barh(heights, [row.top1 for row in rows], height=0.68, color=colours)
    for height, row in zip(heights, rows, strict=True):
        if row.spread:
            axes.errorbar(row.top1, height, xerr=row.spread, color=INK, capsize=2.5, elinewidth=0.9, capthick=0.9)
        _write_beside(axes, row, float(height), uneven=uneven, bold=row.top1 == result.best)
    guess = f"dotted: guessing among {classes} classes" if 1 < classes <= GUESSABLE else ""
    if guess:
        axes.axvline(100 / classes, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)), zorder=2)
    if uneven:
        means = [np.nan if row.mean_per_class is None else row.mean_per_class for row in rows]
        axes.plot(means, heights, "D", markersize=4, markerfacecolor="white", markeredgecolor=INK, markeredgewidth=0.9)
    axes.set_yticks(heights, [row.method for row in rows], parse_math=False)
    axes.invert_yaxis()
    # Room for the longest number right of the longest bar.
    axes.set_xlim(0, max(_right_end(row, uneven=uneven) for row in rows) * (1.4 if uneven else 1.2) or 1)
    axes.set_xlabel("top-1 accuracy (%)")
    used = {row.views for row in rows}
    handles = [Patch(color=colour, label=views) for views, colour in COLOURS.items() if views in used]
    below_axis = (0, -0.48 / (0.33 * len(rows)))
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=below_axis, ncols=3, frameon=False, fontsize=8.5, borderpad=0
    )
    plain_axes(axes)
    spread = "whiskers: one standard deviation over runs" if any(row.spread for row in rows) else ""
    mean = "◇: mean per class" if uneven else ""
    below = "; ".join(filter(None, [f"{rows[0].images} images", spread, mean, guess]))
    title(axes, result.title, below, untrained=result.untrained)
    return figure


def _right_end(row: Row, *, uneven: bool) -> float:
    """Where the bar, its whisker and, if it is drawn, the mark of the mean per class end."""
    return max(row.top1 + row.spread, (row.mean_per_class or 0.0) if uneven else 0.0)


def _write_beside(axes: Axes, row: Row, height: float, *, uneven: bool, bold: bool) -> None:
    """The figures of a bar, right of it."""
    text = f"{row.top1:.1f} ± {row.std:.1f}" if row.runs > 1 else f"{row.top1:.1f}"
    text += f"  (◇ {row.mean_per_class:.1f})" if uneven and row.mean_per_class is not None else ""
    options: dict[str, Any] = {"va": "center", "fontsize": 8.5, "fontweight": "bold" if bold else "normal"}
    white = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    position = (_right_end(row, uneven=uneven), height)
    axes.annotate(text, position, (6, 0), textcoords="offset points", bbox=white, **options)


def plain_axes(axes: Axes) -> None:
    """No frame, no ticks at names, a light grid behind the bars."""
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(MUTED)
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.tick_params(axis="x", length=0, labelsize=8.5, colors=MUTED)
    axes.xaxis.label.set_color(MUTED)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)


def confusion_counts(pairs: pl.DataFrame, order: Sequence[str]) -> np.ndarray:
    """[C, C] int64: images of the class of a row (`actual`) predicted as that of a column (`predicted`)."""
    place = {name: index for index, name in enumerate(order)}
    counts = np.zeros((len(order), len(order)), dtype=np.int64)
    for actual, predicted, images in pairs.group_by("actual", "predicted").len().iter_rows():
        counts[place[actual], place[predicted]] = images
    return counts


def confusion_matrix(result: Result, pairs: pl.DataFrame, order: Sequence[str], method: str, remark: str) -> Figure:
    """The shares of each actual class (row) predicted as each class (column)."""
    counts = confusion_counts(pairs, order)
    rows = np.flatnonzero(counts.sum(axis=1)).tolist()  # "other classes" is a column only
    shown = counts[rows]
    shares = shown / shown.sum(axis=1, keepdims=True)
    few = len(order) <= COUNTED
    cell = 0.42 if few else 0.2
    width, height = cell * len(order), cell * len(rows)
    # The axes are the whole figure, so that cells have their size; labels lie outside, and `save` makes room for them.
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    image = axes.imshow(np.ma.masked_equal(shares, 0), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    size = 9 if few else 7.5
    names = [shortened(name, LONGEST_NAME) for name in order]
    axes.set_xticks(range(len(order)), names, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(range(len(rows)), [names[row] for row in rows], fontsize=size, parse_math=False)
    axes.set_xlabel("predicted", color=MUTED)
    axes.set_ylabel("actual", color=MUTED)
    axes.set_xticks(np.arange(len(order) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#e9e9e9", linewidth=0.6)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    if few:
        for row, column in np.argwhere(shown):
            colour = "white" if shares[row, column] > 0.55 else INK
            axes.text(column, row, shown[row, column], ha="center", va="center", fontsize=8, color=colour)
    scale = figure.add_axes((1 + 0.15 / width, 0, 0.12 / width, min(1.0, 2.4 / height)))
    bar = figure.colorbar(image, cax=scale, ticks=[0, 0.5, 1])
    bar.set_label("share of the actual class", color=MUTED, fontsize=8)
    bar.outline.set_visible(False)
    scale.tick_params(length=0, labelsize=8, colors=MUTED)
    below = f"confusions of {method}" + (f", {remark}" if remark else "")
    title(axes, result.title, below, untrained=result.untrained)
    return figure
