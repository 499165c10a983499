"""Checking every image once: its size after EXIF orientation, and a digest of its bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from stages.common.errors import UserError
from stages.common.images import UNREADABLE, content_digest, image_size, read_image, reason

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
        data = read_image(path)
        width, height = image_size(io.BytesIO(data))
    except UNREADABLE as error:
        return Probe(problem=reason(error))
    return Probe(width, height, content_digest(data))


def probe_all(root: Path, image_ids: Sequence[str]) -> list[Probe]:
    """Probe every image, in order."""
    with ThreadPoolExecutor() as pool:
        return list(
            tqdm(
                pool.map(lambda image_id: probe(root / image_id), image_ids),
                total=len(image_ids),
                desc="images",
                unit="image",
                disable=None,
            )
        )


def refuse_bad(root: Path, probes: Mapping[str, Probe]) -> None:
    """Refuse a data set with images that cannot be read.

    Raises:
        UserError: there are some; names the first of them and counts the rest.
    """
    bad = [f"{image_id} ({p.problem})" for image_id, p in probes.items() if p.problem]
    if bad:
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise UserError(
            f"{len(bad)} of {len(probes)} images under '{root}' cannot be read: {', '.join(bad[:SHOWN])}{more}; "
            "replace or remove them, or set ingest.on_bad_image: skip"
        )
