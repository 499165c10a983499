"""Photos to measure on: those beside the project where they are present, generated ones otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

REAL = Path("../shared/real/photos")


def photos(folder: Path, count: int) -> tuple[list[Path], str]:
    """`count` JPEG files, and what they are in words; generated ones go to `folder`."""
    real = sorted(REAL.glob("*.JPEG"))
    if real:
        return [real[place % len(real)] for place in range(count)], f"{min(count, len(real))} real photos"
    return [generate(folder / f"{number:05d}.jpg", number) for number in range(count)], f"{count} generated photos"


def generate(path: Path, seed: int, size: tuple[int, int] = (500, 375)) -> Path:
    """A JPEG of the size and, roughly, the detail of a photo."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
    grain = rng.normal(0, 12, smooth.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(path, quality=90)
    return path
