"""What is to be beaten: the method as its paper describes it, done in the order in which it is described.

Every candidate crop is drawn, cropped and preprocessed with the encoder's own transform; the IoU filter comes
afterwards; the queue is padded with zeros, encoded as it is in float32, and pickled. One image after another. It is
written from the description (BiFTA, arXiv 2601.20419; WCA, arXiv 2406.02915) and is no one's code.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.ops import box_iou

from stages.common.params import Crop
from stages.crop.boxes import draw_candidates

Transform = Callable[[Image.Image], torch.Tensor]


def prepare(
    path: Path, image_id: str, transform: Transform, crop: Crop, seed: int, threshold: float
) -> tuple[torch.Tensor, int]:
    """The queue of one image: the whole image, the kept crops, zeros: [1 + max_views, 3, S, S] float32.

    Returns:
        The queue, and how many crops it holds.
    """
    image = Image.open(path).convert("RGB")
    boxes = draw_candidates(*image.size, crop, seed, image_id)  # the same boxes, so that both sides do the same
    crops = [transform(image.crop(tuple(box))) for box in boxes.tolist()]
    kept = keep(boxes, threshold, crop.max_views)
    views = torch.stack([transform(image), *(crops[place] for place in kept)])
    queue = torch.zeros(1 + crop.max_views, *views.shape[1:])
    queue[: len(views)] = views
    return queue, len(kept)


def keep(boxes: np.ndarray, threshold: float, most: int) -> list[int]:
    """Which boxes overlap none kept before by more than the threshold."""
    corners = torch.from_numpy(boxes).double()
    overlap = box_iou(corners, corners)
    kept: list[int] = []
    for place in range(len(boxes)):
        if len(kept) == most:
            break
        if not kept or overlap[place, kept].max() <= threshold:
            kept.append(place)
    return kept


@torch.inference_mode()
def embed(
    paths: Sequence[tuple[Path, str]],
    encode_image: Callable[[torch.Tensor], torch.Tensor],
    transform: Transform,
    crop: Crop,
    seed: int,
    threshold: float,
    output: Path,
) -> dict[str, np.ndarray]:
    """Images to a pickle of {image_id: [1 + max_views, D] float32 of unit norm}."""
    features = {}
    for path, image_id in paths:
        queue, _ = prepare(path, image_id, transform, crop, seed, threshold)
        encoded = encode_image(queue)
        features[image_id] = torch.nn.functional.normalize(encoded, dim=-1).numpy()
    output.write_bytes(pickle.dumps(features))
    return features
