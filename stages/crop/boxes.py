"""View refinement (BiFTA, arXiv 2601.20419): random square crops, minus those that overlap one already kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from stages.common.boxes import iou
from stages.common.params import Crop
from stages.common.seeding import generator

GRID_SCALES = 3


def draw_candidates(width: int, height: int, crop: Crop, seed: int, image_id: str) -> np.ndarray:
    """Candidate boxes of one image, in the order drawn.

    A square's side is int(U(min_scale, max_scale) * min(width, height)), at least one pixel; its corner is uniform
    over the positions that fit. Seeded by (seed, image_id). The layout "grid" takes evenly spaced squares of three
    sizes instead, in an order that is seeded alike, so that every pool of the first n has all sizes and places.

    Returns:
        [candidates, 4] int32 pixels: left, top, right, bottom; right and bottom exclusive.
    """
    rng = generator(seed, image_id)
    if crop.layout == "grid":
        return rng.permutation(_grid(width, height, crop))[: crop.candidates]
    scale = rng.uniform(crop.min_scale, crop.max_scale, crop.candidates)
    side = _sides(scale, width, height)
    left = rng.integers(0, width - side, endpoint=True)
    top = rng.integers(0, height - side, endpoint=True)
    return np.stack([left, top, left + side, top + side], axis=1).astype(np.int32)


def _sides(scale: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.maximum(1, (scale * min(width, height)).astype(np.int32))


def _grid(width: int, height: int, crop: Crop) -> np.ndarray:
    """At least `candidates` squares of a few sizes from the smallest to the largest scale, evenly spaced: [N, 4]."""
    places = np.linspace(0.0, 1.0, math.ceil(math.sqrt(crop.candidates / GRID_SCALES)))
    sizes = _sides(np.linspace(crop.min_scale, crop.max_scale, GRID_SCALES), width, height)
    side, across, down = (axis.ravel() for axis in np.meshgrid(sizes, places, places, indexing="ij"))
    left = np.rint(across * (width - side)).astype(np.int32)
    top = np.rint(down * (height - side)).astype(np.int32)
    return np.stack([left, top, left + side, top + side], axis=1).astype(np.int32)


def surviving(boxes: np.ndarray, thresholds: Sequence[float], max_views: int) -> np.ndarray:
    """Which candidates survive under which IoU threshold.

    Going through the candidates in order, one is kept iff its IoU with every one kept is <= threshold, until
    `max_views` are: non-maximum suppression by draw order.

    Args:
        boxes: [N, 4] int32 pixels.
        thresholds: T thresholds in [0, 1].

    Returns:
        [N, T] bool.
    """
    overlaps = iou(boxes, boxes)
    survives = np.zeros((len(boxes), len(thresholds)), dtype=bool)
    for column, threshold in enumerate(thresholds):
        # Bit j of compatible[i] says whether box j may stand beside box i: integers are faster sets than rows of bool.
        packed = np.packbits(overlaps <= threshold, axis=1, bitorder="little")
        compatible = [int.from_bytes(row.tobytes(), "little") for row in packed]
        left = (1 << len(boxes)) - 1
        kept: list[int] = []
        while left and len(kept) < max_views:
            first = (left & -left).bit_length() - 1
            kept.append(first)
            left &= compatible[first] & ~(1 << first)
        survives[kept, column] = True
    return survives
