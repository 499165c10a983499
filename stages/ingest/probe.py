"""Looking at every image once: its size as it will be seen, and a digest of its bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from stages.common.errors import UserError
from stages.common.images import UNREADABLE, content_digest

EXIF_ORIENTATION = 0x0112
SHOWN = 5


@dataclass(frozen=True)
class Probe:
    """What embedding needs to know of an image, or why it cannot be read."""

    width: int = 0
    height: int = 0
    content: str = ""
    """`content_digest` of the file."""
    problem: str = ""


def probe(path: Path) -> Probe:
    """Size after EXIF orientation, and content digest; decodes the image to be sure that it is whole."""
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            # A JPEG is decoded at an eighth of its size: as sure a check, at a fraction of the cost.
            image.draft("RGB", (max(1, width // 8), max(1, height // 8)))
            image.load()
            if image.getexif().get(EXIF_ORIENTATION, 1) >= 5:  # these four turn by a quarter
                width, height = height, width
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.strerror:
            return Probe(problem=error.strerror.lower())
        return Probe(problem="not an image" if "cannot identify" in str(error) else str(error).splitlines()[0])
    return Probe(width, height, content_digest(data))


def probe_all(root: Path, image_ids: Sequence[str]) -> list[Probe]:
    """Probe every image, in order.

    Raises:
        UserError: some cannot be read; names the first of them and counts the rest.
    """
    with ThreadPoolExecutor() as pool:
        found = list(
            tqdm(
                pool.map(lambda image_id: probe(root / image_id), image_ids),
                total=len(image_ids),
                desc="images",
                unit="image",
                disable=None,
            )
        )
    bad = [f"{image_id} ({p.problem})" for image_id, p in zip(image_ids, found, strict=True) if p.problem]
    if bad:
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise UserError(
            f"{len(bad)} of {len(found)} images under '{root}' cannot be read: {', '.join(bad[:SHOWN])}{more}; "
            "replace or remove them"
        )
    return found
