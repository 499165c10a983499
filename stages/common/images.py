"""Reading an image file the one way every stage reads it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for a file that is no whole image."""


def content_digest(data: bytes) -> str:
    """BLAKE2b-64 of an image file's bytes, hex: a replaced image is a changed image."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def open_rgb(path: Path | BinaryIO) -> Image.Image:
    """Decode an image, turn it as its EXIF orientation says, and convert it to RGB.

    Raises:
        UNREADABLE: the file is missing, truncated or not an image.
    """
    with Image.open(path) as image:
        image.load()
        return ImageOps.exif_transpose(image).convert("RGB")
