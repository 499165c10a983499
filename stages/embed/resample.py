"""Resampling all crops of an image at once by two matrix products, for GPUs.

Antialiased resampling is linear and separable: every output row or column is a weighted sum of input rows or columns.
With the weights of all V crops stacked, the first pass is one product over the whole image and the second a batched
one, in place of V small kernels. The steps are those of Pillow and of torch on the CPU: columns first, rounded to
whole grey levels, then rows.
"""

from __future__ import annotations

import numpy as np
import torch

CROPS_AT_ONCE = 64
"""Bounds the memory of the intermediate image, CROPS_AT_ONCE x H x 3 x S numbers."""

SUPPORT = {"bicubic": 2.0, "bilinear": 1.0}
"""Half-width of the interpolation kernel, in pixels of the smaller image."""


def kernel(distance: torch.Tensor, interpolation: str) -> torch.Tensor:
    """The interpolation kernel: Keys's cubic with a = -0.5, as Pillow's, or the triangle."""
    x = distance.abs()
    if interpolation == "bilinear":
        return (1 - x).clamp(min=0)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def axis_weights(starts: torch.Tensor, sides: torch.Tensor, length: int, size: int, interpolation: str) -> torch.Tensor:
    """Weights with which pixels along one axis make those of each crop.

    Args:
        starts: [V] first pixel of each crop on this axis.
        sides: [V] its number of pixels.
        length: of the image on this axis.

    Returns:
        [V, size, length] float32; rows sum to 1 and are zero outside the crop.
    """
    side = sides.float()[:, None, None]
    scale = side / size
    stretch = scale.clamp(min=1)  # the kernel widens where the crop shrinks: the antialiasing
    support = SUPPORT[interpolation] * stretch
    center = (torch.arange(size, device=starts.device, dtype=torch.float32)[None, :, None] + 0.5) * scale
    pixel = torch.arange(length, device=starts.device, dtype=torch.float32)[None, None] - starts[:, None, None]
    first = (center - support + 0.5).floor().clamp(min=0)
    last = torch.minimum((center + support + 0.5).floor(), side)
    weights = kernel((pixel + 0.5 - center) / stretch, interpolation)
    weights = weights.masked_fill((pixel < first) | (pixel >= last), 0)
    return weights / weights.sum(dim=2, keepdim=True)


def resample_together(pixels: torch.Tensor, boxes: np.ndarray, size: int, interpolation: str) -> torch.Tensor:
    """What `views.resample` gives, to a grey level, on the device of the pixels.

    Args:
        pixels: [3, H, W] uint8.
        boxes: [V, 4] pixels: left, top, right, bottom; right and bottom exclusive.

    Returns:
        [V, 3, size, size] uint8.
    """
    # Whole grey levels are exact in float16, and tensor cores multiply it; a CPU has no fast float16.
    dtype = torch.float16 if pixels.is_cuda else torch.float32
    rows = pixels.to(dtype).reshape(-1, pixels.shape[2])
    corners = torch.from_numpy(np.ascontiguousarray(boxes, dtype=np.int32)).to(pixels.device, non_blocking=True)
    parts = [_resample_some(rows, some, pixels.shape[1], size, interpolation) for some in corners.split(CROPS_AT_ONCE)]
    return torch.cat(parts)


def _resample_some(
    rows: torch.Tensor, corners: torch.Tensor, height: int, size: int, interpolation: str
) -> torch.Tensor:
    """[3 * H, W] pixels, [V, 4] corners -> [V, 3, size, size] uint8."""
    left, top, right, bottom = corners.unbind(dim=1)
    across = axis_weights(left, right - left, rows.shape[1], size, interpolation).to(rows.dtype)
    down = axis_weights(top, bottom - top, height, size, interpolation).to(rows.dtype)
    narrowed = (rows @ across.flatten(0, 1).T).round_().clamp_(0, 255)
    narrowed = narrowed.view(3, height, len(corners), size).permute(2, 1, 0, 3).reshape(len(corners), height, 3 * size)
    crops = torch.bmm(down, narrowed).round_().clamp_(0, 255).to(torch.uint8)
    return crops.view(len(corners), size, 3, size).permute(0, 2, 1, 3)
