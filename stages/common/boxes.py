"""Overlap of boxes: the one intersection over union of the pipeline."""

from __future__ import annotations

import numpy as np


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of each of N boxes with each of M others: [N, 4], [M, 4] -> [N, M] float64.

    Boxes are left, top, right, bottom in pixels, right and bottom exclusive, of positive area. float64, because areas
    of large images do not fit float32 exactly and equality with a threshold matters.
    """
    left, top, right, bottom = boxes.astype(np.float64).T[:, :, None]
    lefts, tops, rights, bottoms = others.astype(np.float64).T[:, None, :]
    width = np.minimum(right, rights) - np.maximum(left, lefts)
    height = np.minimum(bottom, bottoms) - np.maximum(top, tops)
    shared = width.clip(min=0.0) * height.clip(min=0.0)
    areas = (right - left) * (bottom - top) + (rights - lefts) * (bottoms - tops)
    return shared / (areas - shared)
