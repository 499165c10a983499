"""Reading an image file the one way every stage reads it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for a file that is no whole image."""


def open_rgb(path: Path) -> Image.Image:
    """Decode an image, turn it as its EXIF orientation says, and convert it to RGB.

    Raises:
        UNREADABLE: the file is missing, truncated or not an image.
    """
    with Image.open(path) as image:
        image.load()
        return ImageOps.exif_transpose(image).convert("RGB")
