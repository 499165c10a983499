"""View refinement (BiFTA, arXiv 2601.20419): random square crops, minus those that overlap one already kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchvision.ops import nms

from stages.common.params import Crop
from stages.common.seeding import generator


def draw_candidates(width: int, height: int, crop: Crop, seed: int, image_id: str) -> np.ndarray:
    """Candidate boxes of one image, in the order drawn.

    A square's side is int(U(min_scale, max_scale) * min(width, height)), at least one pixel; its corner is uniform
    over the positions that fit. Seeded by (seed, image_id).

    Returns:
        [candidates, 4] int32 pixels: left, top, right, bottom; right and bottom exclusive.
    """
    rng = generator(seed, image_id)
    scale = rng.uniform(crop.min_scale, crop.max_scale, crop.candidates)
    side = np.maximum(1, (scale * min(width, height)).astype(np.int32))
    left = rng.integers(0, width - side, endpoint=True)
    top = rng.integers(0, height - side, endpoint=True)
    return np.stack([left, top, left + side, top + side], axis=1).astype(np.int32)


def surviving(boxes: np.ndarray, thresholds: Sequence[float], max_views: int) -> np.ndarray:
    """Which candidates survive under which IoU threshold.

    Going through the candidates in order, one is kept iff its IoU with every one kept is <= threshold, until
    `max_views` are: non-maximum suppression with the draw order as score.

    Args:
        boxes: [N, 4] int32 pixels.
        thresholds: T thresholds in [0, 1].

    Returns:
        [N, T] bool.
    """
    # float64, because areas of large images do not fit float32 exactly and equality with a threshold matters.
    corners = torch.from_numpy(boxes.astype(np.float64))
    order = -torch.arange(len(boxes), dtype=torch.float64)
    survives = np.zeros((len(boxes), len(thresholds)), dtype=bool)
    for column, threshold in enumerate(thresholds):
        survives[nms(corners, order, threshold)[:max_views].numpy(), column] = True
    return survives
