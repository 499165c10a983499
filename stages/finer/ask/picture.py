"""Images as they are sent to an endpoint: base64 data URLs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from stages.common import images
from stages.common.errors import UserError
from stages.common.unpacked import ensure_there
from stages.finer.unified import Sample

TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
"""Formats that every endpoint takes; others are sent as PNG."""

UPRIGHT = (None, 0, 1)
"""Values of the EXIF orientation for images that are shown as they are stored."""


@dataclass(frozen=True)
class Picture:
    """An image file and the digest of its bytes."""

    path: Path
    content: str

    def part(self) -> dict[str, Any]:
        """The content part of a message: the file's own bytes, or a PNG of the image as the other pipeline reads it."""
        kind, data = data_of(self.path)
        return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{base64.b64encode(data).decode()}"}}


def data_of(path: Path) -> tuple[str, bytes]:
    """Media type and bytes of an image as it is sent: upright even for servers that ignore EXIF."""
    data = images.read_image(path)
    with Image.open(io.BytesIO(data), formats=images.FORMATS) as image:
        kind = TYPES.get(image.format or "")
        if kind and image.getexif().get(images.EXIF_ORIENTATION) in UPRIGHT:
            return kind, data
    buffer = io.BytesIO()
    images.open_rgb(io.BytesIO(data)).save(buffer, format="PNG")
    return "image/png", buffer.getvalue()


def find_picture(sample: Sample) -> Picture:
    """The sample's image file.

    Raises:
        UserError: it is missing or not an image.
    """
    path = Path(sample.img_path)
    ensure_there(path)
    try:
        data = images.read_image(path)
        images.image_size(io.BytesIO(data))
    except images.UNREADABLE as error:
        raise UserError(
            f"image '{path}' of idx {sample.idx} cannot be read ({images.reason(error)}); put it there, or correct "
            "img_path in the unified file"
        ) from None
    return Picture(path, images.content_digest(data))
