"""Figures of a report of images without labels: how often each class was predicted, and a contact sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from stages.report.certainty import MOST_CLASSES, Predicted, Unlabelled, class_rows, runner_up
from stages.report.pictures import shortened
from stages.report.plots import INK, MUTED, plain_axes, title

ACROSS, DOWN = 6, 2
"""Images in a row of the sheet, and rows of either kind."""
TILE, LINES, GAP = 1.7, 0.7, 0.12
"""Side of an image on the sheet, the space for the lines under it, and that between images, in inches."""
LETTERS = 26
"""Of a line under an image."""


def no_confusions(result: Unlabelled) -> Figure:
    """In place of the figure of confusions, which needs labels."""
    figure = Figure(figsize=(6.4, 0.05))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    below = "no confusions, because the true classes are not known"
    title(axes, result.heading, below, untrained=result.untrained)
    return figure


def class_bars(result: Unlabelled, predicted: Predicted, names: Sequence[str]) -> Figure:
    """How many images were predicted to be of each class, the most frequent first."""
    rows = class_rows(predicted, names)
    shown = rows[:MOST_CLASSES]
    figure = Figure(figsize=(6.4, 0.3 * len(shown)))
    axes = figure.add_axes((0, 0, 1, 1))
    counts = [int(row[1]) for row in shown]
    axes.barh(range(len(shown)), counts, height=0.68, color="#7fbfb5")
    for place, (_, count, margin, _) in enumerate(shown):
        axes.annotate(
            f"{count}  (margin {margin})",
            (int(count), place),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(shown)), [shortened(row[0], 40) for row in shown], parse_math=False)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(0, 1.35 * max(counts))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("images")
    plain_axes(axes)
    left_out = f", the {len(shown)} most frequent of {len(rows)} that were predicted" if len(rows) > len(shown) else ""
    below = f"classes predicted by {predicted.method}{left_out}; margin: mean distance to the next class"
    title(axes, result.heading, below, untrained=result.untrained)
    return figure


def chosen(predicted: Predicted) -> tuple[list[int], list[int]]:
    """Places of the most and of the least certain images, the most extreme first; no image is in both."""
    order = predicted.by_certainty().tolist()
    most = min(ACROSS * DOWN, math.ceil(len(order) / 2))
    least = min(ACROSS * DOWN, len(order) - most)
    return order[:most], order[::-1][:least]


def sheet(result: Unlabelled, predicted: Predicted, names: Sequence[str], photos: Mapping[int, Image.Image]) -> Figure:
    """The most certain images, and below them the least certain, each with what was predicted.

    Args:
        photos: by the places of `chosen`.
    """
    blocks = [
        (text, own) for text, own in zip(("most certain", "least certain"), chosen(predicted), strict=True) if own
    ]
    rows = [math.ceil(len(own) / ACROSS) for _, own in blocks]
    width = ACROSS * TILE + (ACROSS - 1) * GAP
    height = sum(rows) * (TILE + LINES) + len(blocks) * 0.45
    figure = Figure(figsize=(width, height))
    page = figure.add_axes((0, 0, 1, 1))
    page.set_xlim(0, width)
    page.set_ylim(height, 0)
    page.set_axis_off()
    top = 0.0
    for (text, own), deep in zip(blocks, rows, strict=True):
        page.text(0, top + 0.3, text, fontsize=11, fontweight="bold", color=INK)
        top += 0.45
        for number, place in enumerate(own):
            left, down = number % ACROSS * (TILE + GAP), top + number // ACROSS * (TILE + LINES)
            axes = figure.add_axes((left / width, 1 - (down + TILE) / height, TILE / width, TILE / height))
            axes.imshow(_square(photos[place]))
            axes.set_axis_off()
            lines = _lines(predicted, place, names)
            for line, (words, colour, weight) in enumerate(lines):
                page.text(
                    left, down + TILE + 0.15 + 0.14 * line, words, fontsize=7.5, color=colour, fontweight=weight,
                    parse_math=False,
                )  # fmt: skip
        top += deep * (TILE + LINES)
    below = f"classes predicted by {predicted.method}, by their margin to the next class"
    title(page, result.heading, below, untrained=result.untrained)
    return figure


def _lines(predicted: Predicted, place: int, names: Sequence[str]) -> list[tuple[str, str, str]]:
    """What stands under an image: text, colour, weight."""
    numbers = f"margin {predicted.margin[place]:.3f}, {100 * predicted.agreement[place]:.0f} % of runs"
    return [
        (shortened(names[predicted.first[place]], LETTERS), INK, "bold"),
        (shortened(f"next: {runner_up(predicted, place, names)}", LETTERS), MUTED, "normal"),
        (numbers, MUTED, "normal"),
        (shortened(predicted.image_ids[place], LETTERS), MUTED, "normal"),
    ][: 4 if predicted.second[place] >= 0 else None]


def _square(photo: Image.Image) -> np.ndarray:
    """The whole photo in a white square: [S, S, 3] uint8."""
    small = photo.copy()
    small.thumbnail((360, 360), Image.Resampling.LANCZOS)
    side = max(small.size)
    canvas = Image.new("RGB", (side, side), "white")
    canvas.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    return np.asarray(canvas)
