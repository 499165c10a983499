"""Pictures of view refinement: an image with its kept and its rejected crops."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from PIL import Image

from stages.common.artifacts import UNTRAINED
from stages.common.boxes import iou
from stages.common.crops import IMAGES_AT_ONCE, open_boxes, read_crops, read_images
from stages.report.plots import INK, MUTED, WARNING, shortened
from stages.report.votes import evenly

Colour = tuple[float, float, float]
RED, GREEN, WHITE = (0.75, 0.1, 0.1), (0.05, 0.5, 0.2), (1.0, 1.0, 1.0)

FIRST = 5
"""Of the boxes kept, those drawn first stand out."""
MOST_BOXES = 300
"""Most boxes drawn in a panel."""
LONGEST_SIDE = 720
"""Photos are shrunk to this many pixels before they are drawn."""
PANEL, GAP = 4.4, 0.15
"""Side of a square photo's panel, and the space between two panels, in inches."""


@dataclass(frozen=True)
class Crops:
    """The candidate crops of an image at one IoU threshold.

    Attributes:
        kept: [K, 4] int32 left, top, right, bottom, in the order drawn.
        rejected: [R, 4] int32, those that overlap a kept one.
        unused: how many came after the last view wanted and were never compared.
    """

    kept: np.ndarray
    rejected: np.ndarray
    unused: int

    @property
    def candidates(self) -> int:
        return len(self.kept) + len(self.rejected) + self.unused


@dataclass(frozen=True)
class Caption:
    """What is written over a picture. `answers` are method, predicted class, and whether that is right."""

    image_id: str
    actual: str | None
    """None where the true class is not known."""
    answers: list[tuple[str, str, bool]]
    threshold: float
    untrained: bool


@dataclass(frozen=True)
class Candidates:
    """The C candidate boxes of an image."""

    corners: np.ndarray
    """[C, 4] int32 left, top, right, bottom."""
    kept: np.ndarray
    """[C] bool: which survive under the threshold."""

    def crops(self, max_views: int) -> Crops:
        """Told apart by what refinement, which stops at `max_views`, made of them."""
        reached = len(self.kept)
        if self.kept.sum() >= max_views:
            reached = int(np.flatnonzero(self.kept)[-1]) + 1
        compared = np.arange(len(self.kept)) < reached
        rejected = self.corners[~self.kept & compared]
        return Crops(self.corners[self.kept], rejected, len(self.kept) - reached)


def read_candidates(dataset: str, wanted: Collection[str], threshold: float) -> tuple[dict[str, Candidates], int]:
    """The candidates of some images, and where refinement stopped (`max_views`).

    All boxes are read, because only all of them can be verified.

    Raises:
        UserError: as `read_crops`, or the boxes were made with other thresholds.
    """
    boxes, names, found = open_boxes(dataset), set(wanted), {}
    boxes.meta.parameters.require(threshold, boxes.path)
    for crops in read_crops(boxes, read_images(dataset), IMAGES_AT_ONCE):
        for place, image_id in enumerate(crops.image_ids):
            if image_id in names:
                found[image_id] = Candidates(crops.boxes[place], crops.refined(threshold)[place])
    return found, boxes.meta.parameters.max_views


def draw(photo: Image.Image, crops: Crops, caption: Caption) -> Figure:
    """Two panels: kept boxes in colours of their own; rejected ones in red, one of them with what it repeats."""
    width, height = photo.size
    # Panels have the photo's shape and an area in inches that does not depend on it.
    wide = min(PANEL * math.sqrt(width / height), 1.6 * PANEL)
    tall = wide * height / width
    figure = Figure(figsize=(2 * wide + GAP, tall))
    share = wide / (2 * wide + GAP)
    left, right = figure.add_axes((0, 0, share, 1)), figure.add_axes((1 - share, 0, share, 1))
    backdrop = faded(photo)
    kept = evenly(list(zip(crops.kept, distinct(len(crops.kept)), strict=True)), MOST_BOXES)
    heading = f"kept {len(crops.kept)} of {crops.candidates} at IoU ≤ {caption.threshold:g}"
    panel(left, backdrop, photo.size, heading, f"bold: the first {min(FIRST, len(kept))} kept")
    outline(left, kept[FIRST:], width=0.6, opacity=0.75)
    stand_out(left, kept[:FIRST])

    rejected = evenly(list(crops.rejected), MOST_BOXES)
    heading = f"rejected {len(crops.rejected)}"
    if len(rejected) < len(crops.rejected):
        heading += f", {len(rejected)} drawn"
    if crops.unused:
        heading += f"; {crops.unused} more not needed"
    overlap = closest(crops)
    example = f"bold: one rejected, IoU {overlap[2]:.2f} with a kept one (dashed)" if overlap else ""
    panel(right, backdrop, photo.size, heading, example)
    # Many lines add up to a tint, so they need a lower opacity than a few lines.
    outline(right, [(box, RED) for box in rejected], width=0.6, opacity=min(0.9, max(0.3, 25 / max(1, len(rejected)))))
    if overlap:
        stand_out(right, [(overlap[0], RED)])
        stand_out(right, [(overlap[1], GREEN)], style="dashed")
    write_caption(figure, caption, tall)
    return figure


def closest(crops: Crops) -> tuple[np.ndarray, np.ndarray, float] | None:
    """The first rejected box, the kept one it overlaps most, and their IoU."""
    if not len(crops.rejected):
        return None
    overlaps = iou(crops.rejected[:1], crops.kept)[0]
    best = int(overlaps.argmax())
    return crops.rejected[0], crops.kept[best], float(overlaps[best])


def panel(axes: Axes, backdrop: np.ndarray, size: tuple[int, int], heading: str, below: str) -> None:
    width, height = size
    axes.imshow(backdrop, extent=(0, width, height, 0), interpolation="bilinear")
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(heading, (0, 1), (0, 17), fontsize=9.5, color=INK, **place)
    axes.annotate(below, (0, 1), (0, 5), fontsize=8, color=MUTED, **place)


def outline(
    axes: Axes, boxes: list[tuple[np.ndarray, Colour]], width: float, opacity: float = 1.0, style: str = "solid"
) -> None:
    corners = [[(x0, y0), (x1, y0), (x1, y1), (x0, y1)] for (x0, y0, x1, y1), _ in boxes]
    colours = [(*colour, opacity) for _, colour in boxes]
    lines = PolyCollection(corners, facecolors="none", edgecolors=colours, linewidths=width, linestyles=style)
    axes.add_collection(lines)


def stand_out(axes: Axes, boxes: list[tuple[np.ndarray, Colour]], style: str = "solid", width: float = 2.0) -> None:
    """Bold outlines on white ones, to be seen on photos of any colour."""
    for box, colour in boxes:
        outline(axes, [(box, WHITE)], width=width + 1.4, opacity=0.8)
        outline(axes, [(box, colour)], width=width, style=style)


def write_caption(figure: Figure, caption: Caption, height: float) -> None:
    """Image and class on the first line, what the methods say on the second."""
    options: dict[str, Any] = {"ha": "left", "va": "top", "parse_math": False}
    known = caption.actual is not None
    first = "  ·  ".join([shortened(caption.image_id, 48), *([shortened(caption.actual or "", 40)] if known else [])])
    figure.text(0, 1 + 0.84 / height, first, fontsize=11.5, fontweight="bold", color=INK, **options)
    if caption.untrained:
        figure.text(
            1, 1 + 0.84 / height, UNTRAINED, fontsize=11.5, fontweight="bold", color=WARNING, ha="right", va="top"
        )
    marks = {True: " ✓", False: " ✗"} if known else {True: "", False: ""}
    said = [f"{method}: {shortened(name, 28)}{marks[right]}" for method, name, right in caption.answers]
    figure.text(0, 1 + 0.58 / height, "     ".join(said), fontsize=9.5, color=MUTED, **options)


def faded(photo: Image.Image) -> np.ndarray:
    """[H, W, 3] uint8, shrunk and a little lighter, so that thin lines stand out."""
    small = photo.copy()
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(Image.blend(small, Image.new("RGB", small.size, "white"), 0.3))


def distinct(count: int) -> Iterator[Colour]:
    """Saturated colours whose neighbours in order differ most: hues a golden angle apart."""
    for index in range(count):
        yield colorsys.hsv_to_rgb(index * 0.61803398875 % 1, 0.95, 0.8)
