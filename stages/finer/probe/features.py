"""Mean-pooled features of images before and after the projector of a LLaVA."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from stages.common.errors import UserError
from stages.common.images import UNREADABLE, open_rgb, reason
from stages.common.unpacked import ensure_there
from stages.finer.llava import PROJECTOR, Llava

AT_ONCE = 16
"""Images encoded at once. LLaVA-NeXT's are encoded one by one, because each has its own number of tiles."""


def extract(llava: Llava, images: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Features of N images before and after the projector: [N, D] and [N, H] float32.

    By the model's configuration, the projector's input is an earlier layer of the vision tower (LLaVA's
    second-to-last), without the class token if the model drops it. The mean is over patches, and over tiles if the
    model cuts images into tiles.

    Raises:
        UserError: an image that is missing or cannot be read; a feature that is not finite.
    """
    at_once = 1 if llava.config.model_type == "llava_next" else AT_ONCE
    starts = range(0, len(images), at_once)
    parts = [
        pooled(llava, [_open(path) for path in images[start : start + at_once]])
        for start in tqdm(starts, desc="features", unit="batch", disable=None)
    ]
    before, after = (np.concatenate(side) for side in zip(*parts, strict=True))
    finite = np.isfinite(before).all(axis=1) & np.isfinite(after).all(axis=1)
    if not finite.all():
        raise UserError(
            f"probe: the features of {images[int(np.argmin(finite))]} are not finite (and {(~finite).sum() - 1} "
            "others). The model's weights hold NaN, or values too large for its precision; fetch or tune it again"
        )
    return before, after


def _open(path: Path) -> Image.Image:
    ensure_there(path)
    try:
        return open_rgb(path)
    except UNREADABLE as error:
        raise UserError(f"probe: image {path}: {reason(error)}; replace it, or ingest the data set again") from None


def pooled(llava: Llava, images: Sequence[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    """As `extract`, for images that are encoded together."""
    device, dtype = llava.model.device, llava.model.dtype
    batch = llava.processor.image_processor(list(images), return_tensors="pt")
    inputs = {"pixel_values": batch["pixel_values"].to(device, dtype)}
    if "image_sizes" in batch:
        inputs["image_sizes"] = batch["image_sizes"]
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    projector = getattr(llava.model.model, PROJECTOR)
    hook = projector.register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
    try:
        with torch.no_grad():
            llava.model.get_image_features(**inputs)
    finally:
        hook.remove()
    (before, after) = seen[0]
    return _mean(before, len(images)), _mean(after, len(images))


def _mean(patches: torch.Tensor, images: int) -> np.ndarray:
    """[images * tiles, P, D] -> [images, D] float32."""
    return patches.float().reshape(images, -1, patches.shape[-1]).mean(dim=1).cpu().numpy()
