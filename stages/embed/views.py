"""From an image file to the pixels of its views: each image is decoded once, and each wanted crop is resampled once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torchvision import transforms

LONG = 8
"""Longer side over shorter, above which the middle square is resized alone."""
THINNEST = 64
"""Longer over shorter side, at most, when an image is resized by its longer side."""


def to_tensor(image: Image.Image) -> torch.Tensor:
    """RGB image -> [3, height, width] uint8 tensor, channels last in memory (the fast layout for resampling)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def whole_image_transform(preprocess: dict[str, Any], size: int) -> Callable[[Image.Image], Image.Image]:
    """open_clip's own transform of a whole image (resize, centre crop or squash), without the normalisation."""
    keys = ("mean", "std", "interpolation", "resize_mode")
    full = image_transform_v2(PreprocessCfg(size=size, **{key: preprocess[key] for key in keys}), is_train=False)
    pixel_steps = [step for step in full.transforms if not isinstance(step, transforms.ToTensor | transforms.Normalize)]
    if preprocess["resize_mode"] == "shortest":
        pixel_steps.insert(0, partial(middle_square, size=size, interpolation=preprocess["interpolation"]))
    elif preprocess["resize_mode"] == "longest":
        pixel_steps.insert(0, thicken)
    return transforms.Compose(pixel_steps)


def middle_square(image: Image.Image, size: int, interpolation: str) -> Image.Image:
    """Resize by the shorter side and crop the centre of a very long image, without resizing its ends.

    An image of 12000 x 1 would become one of 2688000 x 224 before the crop.
    """
    width, height = image.size
    short, long = sorted(image.size)
    if long <= LONG * short:
        return image
    resized = int(size * long / short)
    start = round((resized - size) / 2)  # as torchvision's CenterCrop
    first, last = start * long / resized, (start + size) * long / resized
    box = (first, 0, last, height) if width > height else (0, first, width, last)
    return image.resize((size, size), Image.Resampling[interpolation.upper()], box=box)


def thicken(image: Image.Image) -> Image.Image:
    """An image whose shorter side, resized by the longer one, is left with at least a pixel.

    An image of 12000 x 1 would vanish, so it is stretched across first.
    """
    width, height = image.size
    least = -(-max(width, height) // THINNEST)
    wanted = (max(width, least), max(height, least))
    return image if wanted == image.size else image.resize(wanted, Image.Resampling.NEAREST)


def resample(pixels: torch.Tensor, boxes: np.ndarray, size: int, interpolation: str) -> torch.Tensor:
    """[3, H, W] uint8, [V, 4] boxes (left, top, right, bottom) -> the crops as [V, 3, size, size] uint8, antialiased.

    Channels last in memory on both sides: torch's fast path, and the layout that encoders want.
    """
    # What `torch.nn.functional.interpolate(..., antialias=True)` calls. Writing in place takes 0.4 times as long.
    antialiased = {
        "bicubic": torch.ops.aten._upsample_bicubic2d_aa.out,
        "bilinear": torch.ops.aten._upsample_bilinear2d_aa.out,
    }[interpolation]
    crops = torch.empty((len(boxes), size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    for place, (left, top, right, bottom) in enumerate(boxes.tolist()):
        crop = pixels[None, :, top:bottom, left:right]
        antialiased(crop, (size, size), align_corners=False, out=crops[place : place + 1])
    return crops


class ViewMaker:
    """Pixels of an image's views as a model wants them: [n, 3, S, S] uint8, channels last in memory."""

    def __init__(self, preprocess: dict[str, Any], size: int) -> None:
        self.size = size
        self.interpolation: str = preprocess["interpolation"]
        self._whole = whole_image_transform(preprocess, size)

    def whole(self, image: Image.Image) -> torch.Tensor:
        """The view of the whole image: [1, 3, S, S]."""
        return to_tensor(self._whole(image))[None]

    def crops(self, pixels: torch.Tensor, boxes: np.ndarray) -> torch.Tensor:
        """The views in the boxes, of `to_tensor(image)`: [V, 3, S, S]."""
        return resample(pixels, boxes, self.size, self.interpolation)

    def __call__(self, image: Image.Image, boxes: np.ndarray) -> torch.Tensor:
        """RGB image and [V, 4] int boxes -> [1 + V, 3, S, S], the whole image first."""
        whole = self.whole(image)
        return torch.cat([whole, self.crops(to_tensor(image), boxes)]) if len(boxes) else whole
