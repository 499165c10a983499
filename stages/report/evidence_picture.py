"""The picture of section 3 of BiFTA (arXiv 2601.20419): boxes with their weights, beside the sentences that matched."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from stages.report.evidence import Evidence, Side
from stages.report.legible import drawable
from stages.report.pictures import Caption, Colour, distinct, faded, outline, panel, shortened, stand_out, write_caption
from stages.report.plots import INK, MUTED

NUMBERED = 5
"""Accepted boxes that get a number and a row of the table: those of the highest weight."""
LABELLED = 3
"""Number of rejected boxes that are labelled with their weight."""
PHOTO, GAP, TEXT = 3.5, 0.4, 6.4
"""Side of a square photo's panel, the space beside it, and the width of what is written there, in inches."""
LINE, ROW, BAR = 0.155, 0.24, 0.7
"""Height of a line of a description and of a row of the table, and length of a bar in it, in inches."""
CHARACTERS, MOST_LINES = 74, 3
"""A description's lines: how long, and how many at most."""
TRUE, OTHER = "#1f7a6d", "#b8561b"
GREY: Colour = (0.42, 0.42, 0.42)
TEAL: Colour = (0.12, 0.48, 0.43)


@dataclass(frozen=True)
class Column:
    """A column of the table: where it ends and what bars of it are drawn in."""

    right: float
    colour: str


def draw(photo: Image.Image, evidence: Evidence, caption: Caption, names: dict[int, str]) -> Figure:
    """Accepted boxes over rejected ones at the left; the table of views and the descriptions at the right."""
    width, height = photo.size
    wide = min(PHOTO * math.sqrt(width / height), 1.4 * PHOTO)
    tall = wide * height / width
    between = 0.5
    blocks = [_lines(side) for side in evidence.sides]
    tallest = max(2 * tall + between, _text_height(evidence, blocks))
    total = wide + GAP + TEXT
    figure = Figure(figsize=(total, tallest))
    upper = figure.add_axes((0, 1 - tall / tallest, wide / total, tall / tallest))
    lower = figure.add_axes((0, 1 - (2 * tall + between) / tallest, wide / total, tall / tallest))
    backdrop = faded(photo)
    _draw_accepted(upper, backdrop, photo.size, evidence)
    _draw_rejected(lower, backdrop, photo.size, evidence)
    # One axes whose unit is an inch, y down from the top edge of the photo.
    page = figure.add_axes(((wide + GAP) / total, 0, TEXT / total, 1))
    page.set_xlim(0, TEXT)
    page.set_ylim(tallest, 0)
    page.set_axis_off()
    below = _write_table(page, evidence, names)
    for number, (side, lines) in enumerate(zip(evidence.sides, blocks, strict=True)):
        role = _role(evidence, number, known=caption.actual is not None)
        below = _write_matches(page, below, side, lines, role, names)
    write_caption(figure, caption, tallest)
    return figure


def _role(evidence: Evidence, number: int, *, known: bool) -> str:
    if number == 0 and not known:
        return "predicted"
    if number == 0:
        return "true" if not evidence.right else "true and predicted"
    return "next best" if evidence.right else "predicted"


def _draw_accepted(axes: Axes, backdrop: np.ndarray, size: tuple[int, int], evidence: Evidence) -> None:
    weights = evidence.weights
    panel(axes, backdrop, size, f"{len(weights)} accepted", "line width: weight; numbered: those of the highest")
    top = weights[0]
    for box, weight in reversed(list(zip(evidence.accepted[NUMBERED:], weights[NUMBERED:], strict=True))):
        outline(axes, [(box, TEAL)], width=0.4 + 1.6 * weight / top, opacity=0.35 + 0.5 * weight / top)
    numbered = list(zip(evidence.accepted[:NUMBERED], distinct(NUMBERED), weights[:NUMBERED], strict=False))
    for box, colour, weight in reversed(numbered):
        stand_out(axes, [(box, colour)], width=1.0 + 2.2 * weight / top)
    taken: list[tuple[float, float]] = []
    for number, (box, colour, _) in enumerate(numbered, start=1):
        _label(axes, _free_corner(box, taken, size), str(number), colour)


def _draw_rejected(axes: Axes, backdrop: np.ndarray, size: tuple[int, int], evidence: Evidence) -> None:
    hypothetical_weights = evidence.hypothetical_weights
    below = "line width, figures: the weight each would have had" if len(hypothetical_weights) else ""
    panel(axes, backdrop, size, f"{len(hypothetical_weights)} rejected (of those embedded)", below)
    if not len(hypothetical_weights):
        return
    top = max(hypothetical_weights[0], evidence.weights[0])
    for box, weight in reversed(list(zip(evidence.rejected, hypothetical_weights, strict=True))):
        outline(axes, [(box, GREY)], width=0.4 + 2.0 * weight / top, opacity=0.3 + 0.6 * weight / top)
    taken: list[tuple[float, float]] = []
    for box, weight in zip(evidence.rejected[:LABELLED], hypothetical_weights[:LABELLED], strict=True):
        _label(axes, _free_corner(box, taken, size, 0.07), f"{100 * weight:.1f} %", GREY)


def _free_corner(
    box: np.ndarray, taken: list[tuple[float, float]], size: tuple[int, int], margin: float = 0.03
) -> tuple[float, float]:
    """The corner of a box that is farthest from those taken, which it joins; the first is top left.

    It is moved inwards where it is closer to the photo's edge than `margin`, a share of the longer side.
    """
    left, top, right, bottom = (float(edge) for edge in box)
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    scale = max(size)

    def room(corner: tuple[float, float]) -> float:
        return min((math.dist(corner, other) / scale for other in taken), default=0.0)

    best = max(corners, key=room)
    taken.append(best)
    inset = margin * scale
    return min(max(best[0], inset), size[0] - inset), min(max(best[1], 0.03 * scale), size[1] - 0.03 * scale)


def _label(axes: Axes, corner: tuple[float, float], text: str, colour: Colour) -> None:
    box = {"boxstyle": "round,pad=0.22", "facecolor": colour, "edgecolor": "white", "linewidth": 0.8}
    axes.annotate(text, corner, fontsize=8, fontweight="bold", color="white", ha="center", va="center", bbox=box)


def _text_height(evidence: Evidence, blocks: list[list[list[str]]]) -> float:
    table = (min(NUMBERED, len(evidence.weights)) + 4) * ROW
    return table + sum(0.5 + sum(LINE * len(lines) + 0.12 for lines in block) for block in blocks)


def _lines(side: Side) -> list[list[str]]:
    """The descriptions of a class, each in lines."""
    return [
        textwrap.wrap(match.description, CHARACTERS, max_lines=MOST_LINES, placeholder=" …", break_long_words=True)
        for match in side.matches
    ]


def _write(page: Axes, x: float, y: float, text: str, **options: Any) -> None:
    """Text whose baseline is at (x, y) inches."""
    page.text(x, y, text, **{"fontsize": 8.5, "color": INK, "parse_math": False, "clip_on": False, **options})


def _write_table(page: Axes, evidence: Evidence, names: dict[int, str]) -> float:
    """One row a numbered box, one for the rest, one for the sum; returns where the next block may begin, in inches."""
    sides, shown = evidence.sides, min(NUMBERED, len(evidence.weights))
    heads = ["weight", *(shortened(drawable(names[side.label])[0], 22) for side in sides)]  # code points are long
    values = [evidence.weights, *(side.contributions for side in sides)]
    columns = [Column(2.0, "#8a8f98"), Column(3.75, TRUE), Column(5.5, OTHER)][: len(values)]
    _write(page, 0, -0.24, "Views", fontsize=9.5)
    _write(page, 0, -0.07, "each box's weight and its share of the score of a class", fontsize=8, color=MUTED)
    y = 0.2
    for head, column in zip(heads, columns, strict=True):
        _write(page, column.right, y, head, ha="right", fontsize=8, color=column.colour, fontweight="bold")
    if len(sides) == 2:
        _write(page, TEXT, y, "difference", ha="right", fontsize=8, color=MUTED, fontweight="bold")
    rest = f"{len(evidence.weights) - shown} others"
    colours = [*distinct(shown), GREY]
    groups = [slice(i, i + 1) for i in range(shown)] + ([slice(shown, None)] if len(evidence.weights) > shown else [])
    for number, group in enumerate(groups):
        y += ROW
        cells = [float(value[group].sum()) for value in values]
        if number < shown:
            _label(page, (0.12, y - 0.05), str(number + 1), colours[number])
        else:
            _write(page, 0, y, rest, color=MUTED)
        _write_row(page, y, cells, columns, [float(value.sum()) for value in values])
    y += ROW
    page.plot([0, TEXT], [y - 0.17] * 2, color="#cccccc", linewidth=0.8, clip_on=False)
    _write(page, 0, y, "score", fontweight="bold")
    _write_row(page, y, [1.0, *(side.score for side in sides)], columns, None)
    return y + ROW


def _write_row(page: Axes, y: float, cells: list[float], columns: list[Column], full: list[float] | None) -> None:
    """Numbers, each with a bar before it in proportion to `full`; at the right end what tells two classes apart."""
    for place, (cell, column) in enumerate(zip(cells, columns, strict=True)):
        text = f"{100 * cell:.1f} %" if place == 0 else f"{cell:.4f}"
        if full:
            bar = (column.right - BAR - 0.52, y - 0.125), BAR * cell / full[place], 0.15
            page.add_patch(Rectangle(*bar, color=column.colour, alpha=0.4, linewidth=0))
        _write(page, column.right, y, text, ha="right", fontweight="normal" if full else "bold")
    if len(cells) == 3:
        difference = cells[1] - cells[2]
        colour = TRUE if difference >= 0 else OTHER
        _write(
            page,
            TEXT,
            y,
            f"{difference:+.4f}".replace("-", "−"),
            ha="right",
            color=colour,
            fontweight="normal" if full else "bold",
        )


def _write_matches(
    page: Axes, y: float, side: Side, blocks: list[list[str]], role: str, names: dict[int, str]
) -> float:
    """The descriptions of a class that contributed most; returns where the next block may begin, in inches."""
    colour = OTHER if role in ("predicted", "next best") else TRUE
    y += 0.1
    _write(page, 0, y, f"{shortened(names[side.label], 40)} ({role})", fontsize=9.5, color=colour, fontweight="bold")
    _write(page, TEXT, y, "share of the score · weight · cosine", fontsize=8, color=MUTED, ha="right")
    y += 0.08
    most = max(match.contribution for match in side.matches)
    for match, lines in zip(side.matches, blocks, strict=True):
        tall = LINE * len(lines)
        share = max(match.contribution, 0) / most if most > 0 else 0
        page.add_patch(
            Rectangle((0, y + 0.06), 0.05, tall, color=colour, alpha=0.25 + 0.75 * share, linewidth=0, clip_on=False)
        )
        for number, line in enumerate(lines, start=1):
            _write(page, 0.14, y + LINE * number + 0.02, line)
        figures = f"{match.contribution:.4f} · {100 * match.weight:.1f} % · {match.cosine:.3f}"
        _write(page, TEXT, y + LINE + 0.02, figures, ha="right", fontsize=8, color=MUTED)
        y += tall + 0.12
    return y + 0.3
