"""Reading an image file; every stage does it in this way.

Pixels are those of CLIP's own preprocessing, Pillow's `convert("RGB")`: of an animation the first frame; an alpha
channel is dropped, not composited, so that published figures stay comparable. Two things are done beyond it: the
EXIF orientation is applied, and 16-bit grey is scaled to 8 bits, which `convert` would clip to white.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""Formats that are recognised by content, without those for which Pillow would start another program."""

TEXT_MIB = 256
"""Text and colour profiles of a PNG, unpacked; Pillow allows 1 MiB, and the workflows of image generators have more."""

IMAGE_MIB = 256
"""Bytes of an image file, or of an image in an archive; a photo of 50 megapixels without compression has 150 MiB."""

EXIF_ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(OSError):
    """A file that cannot be read as an image; its text is the reason, in a few words."""


UNREADABLE = (OSError,)
"""What reading an image raises: `UnreadableImage`, or the operating system's errors."""

LARGE_PIXELS = 40_000_000
"""Images with more are decoded one at a time, whatever the number of threads: Pillow's limit allows 2 GB for each."""

_lock, _large = threading.Lock(), threading.Lock()
_limits: list[tuple[int, int]] = []
"""Pillow's own limits, saved once for each decoding thread."""


@contextmanager
def _more_text() -> Iterator[None]:
    """Lets PNGs have TEXT_MIB of text while an image is decoded; Pillow's limits are the whole process's."""
    with _lock:
        _limits.append(_limits[0] if _limits else (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY))
        PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = TEXT_MIB << 20
    try:
        yield
    finally:
        with _lock:
            before = _limits.pop()
            if not _limits:
                PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = before


def content_digest(data: bytes) -> str:
    """BLAKE2b-64 of an image file's bytes, hex; it shows whether an image was replaced."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def read_image(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        UNREADABLE: the file is missing, or has more than IMAGE_MIB.
    """
    with path.open("rb") as file:
        data = file.read((IMAGE_MIB << 20) + 1) if os.fstat(file.fileno()).st_size <= IMAGE_MIB << 20 else None
    if data is None or len(data) > IMAGE_MIB << 20:
        raise UnreadableImage(f"more than {IMAGE_MIB} MiB")
    return data


def reason(error: OSError) -> str:
    """Why an image cannot be read, in a few words and without its name, for counting."""
    if isinstance(error, UnreadableImage) or not error.strerror:
        return str(error)
    return error.strerror.lower()


def open_rgb(path: Path | BinaryIO) -> Image.Image:
    """Decode an image, turn it as its EXIF orientation says, and convert it to 8-bit RGB.

    Raises:
        UNREADABLE: the file is missing, truncated, not an image, or too large to be decoded.
    """
    return _decode(path, check=False)[0]


def image_size(path: Path | BinaryIO) -> tuple[int, int]:
    """Width and height of the result of `open_rgb`. The image is decoded as a check.

    Raises:
        UNREADABLE: where `open_rgb` does.
    """
    return _decode(path, check=True)[1]


def _decode(path: Path | BinaryIO, *, check: bool) -> tuple[Image.Image, tuple[int, int]]:
    """The RGB image, to check alone at a fraction of its size, and its width and height."""
    source: BinaryIO = io.BytesIO(read_image(path)) if isinstance(path, Path) else path
    try:
        with _more_text(), Image.open(source, formats=FORMATS) as image:
            width, height = image.size
            if check:
                # A JPEG is decoded at an eighth of its size: as sure a check, at a fraction of the cost.
                image.draft("RGB", (max(1, width // 8), max(1, height // 8)))
            with _large if width * height > LARGE_PIXELS else nullcontext():
                image.load()
                turn = orientation(image)
                rgb = to_rgb(image)
    except Exception as error:  # a damaged file makes Pillow raise whatever its decoder stumbled over
        raise UnreadableImage(_explain(error, source)) from error
    if turn in TURNS:
        rgb = rgb.transpose(TURNS[turn])
    return rgb, (height, width) if turn >= 5 else (width, height)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or EXIF that cannot be read."""
    try:
        value = int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:
        return 1
    return value if value in TURNS else 1


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of an image of any mode.

    Raises:
        ValueError: pixels with an unknown range.
    """
    if image.mode.startswith("I"):  # whole numbers: 16 bits, of which Pillow makes 32 for some formats
        whole = np.asarray(image)
        if whole.min() < 0 or whole.max() > 0xFFFF:
            raise ValueError("32-bit pixels")
        pixels = whole.astype(np.uint32)
        pixels *= 0xFF
        pixels += 0x7FFF
        pixels //= 0xFFFF
        image = Image.fromarray(pixels.astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point pixels")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours, which Pillow would warn of
    return image.convert("RGB")


def _explain(error: Exception, source: BinaryIO) -> str:
    """The reason as words that are the same for every image of its kind."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels"
    if "MAX_TEXT_CHUNK" in text or "text chunk" in text:
        return f"more than {TEXT_MIB} MiB of text or colour profile"
    if isinstance(error, MemoryError):
        return "does not fit in memory"
    if isinstance(error, UnidentifiedImageError):
        return "not an image" if source.seek(0, 2) else "not an image (empty file)"
    if "truncated" in text.lower() or "broken" in text.lower() or isinstance(error, EOFError):
        return "truncated or damaged"
    if isinstance(error, ValueError) and text.endswith("pixels"):
        return text
    return f"damaged: {text}"
