"""From images to the embeddings of their views, on all cores of one machine or on its GPU.

On a CPU one thread does all the work of an image, from decoding to embedding. No core waits for another, and an image's
embeddings depend on nothing but the image. On a GPU, threads decode while the GPU resamples and encodes batches of one
size; a row of such a batch does not depend on the other rows.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
import torch
from PIL import Image

from stages.common.encoders import Encoder
from stages.common.errors import UserError
from stages.common.images import UNREADABLE, content_digest, open_rgb
from stages.common.images import read_image as read_file
from stages.common.overlap import in_order
from stages.embed.resample import resample_together
from stages.embed.shards import ImageViews
from stages.embed.views import ViewMaker, to_tensor

Read = Callable[[ImageViews], Image.Image]
"""Gives the pixels of an image, in RGB."""

PIXELS_AT_ONCE = {"cpu": 16 * 224**2, "cuda": 512 * 224**2}
"""Pixels of a forward pass with `embed.batch_size: auto`: few enough for the caches of a CPU, enough to keep a GPU
busy."""


@dataclass(frozen=True)
class Embedded:
    """The embeddings of the views of one image, the whole image first."""

    embeddings: torch.Tensor
    """[1 + V, D] float16, of unit norm before rounding."""
    similarity: torch.Tensor
    """[1 + V] float32, cosine to the whole image, before rounding."""

    @classmethod
    def of(cls, embeddings: torch.Tensor) -> Embedded:
        """[1 + V, D] float32 of unit norm, on any device."""
        return cls(embeddings.half(), (embeddings * embeddings[:1]).sum(dim=1))


def fetch(embedded: Sequence[Embedded]) -> list[Embedded]:
    """The same in the CPU's memory. One transfer, because each transfer waits for the GPU to finish its work."""
    if not embedded:
        return []
    counts = [len(one.similarity) for one in embedded]
    embeddings = torch.cat([one.embeddings for one in embedded]).cpu().split(counts)
    similarity = torch.cat([one.similarity for one in embedded]).cpu().split(counts)
    return [Embedded(*pair) for pair in zip(embeddings, similarity, strict=True)]


def forward_size(batch_size: int | str, encoder: Encoder) -> int:
    """Views in a forward pass."""
    if isinstance(batch_size, int):
        return batch_size
    return max(1, PIXELS_AT_ONCE[encoder.device.type] // encoder.image_size**2)


def embed_images(
    images: Iterable[ImageViews], root: str, encoder: Encoder, batch_size: int | str
) -> Iterator[Embedded]:
    """Embed images in order, reading some ahead.

    Args:
        root: folder or fsspec URL that image_ids are relative to.
        batch_size: views in a forward pass, or "auto".

    Raises:
        UserError: an image that cannot be read, or that has changed since `ingest`.
    """
    return embed_pictures(images, partial(read_image, root), encoder, batch_size)


def embed_pictures(
    images: Iterable[ImageViews], read: Read, encoder: Encoder, batch_size: int | str
) -> Iterator[Embedded]:
    """As `embed_images`, with `read` to get an image's pixels."""
    make_views = ViewMaker(encoder.meta.preprocess, encoder.image_size)
    size = forward_size(batch_size, encoder)
    if encoder.device.type == "cpu":
        return embed_in_threads(images, read, encoder, make_views, size)
    return embed_in_batches(images, read, encoder, make_views, size)


def embed_in_threads(
    images: Iterable[ImageViews], read: Read, encoder: Encoder, make_views: ViewMaker, size: int
) -> Iterator[Embedded]:
    """One thread for each image; forward passes of at most `size` views, each on one core."""

    @torch.inference_mode()
    def one(image: ImageViews) -> Embedded:
        picture = read(image)
        pixels = to_tensor(picture)
        parts: list[torch.Tensor] = []
        # The whole image goes first, together with the first crops.
        for boxes in np.split(image.boxes, range(size - 1, len(image.boxes), size)):
            views = make_views.crops(pixels, boxes)
            parts.append(encoder.encode_images(views if parts else torch.cat([make_views.whole(picture), views])))
        return Embedded.of(torch.cat(parts))

    return in_order(one, images, threads=torch.get_num_threads())


def embed_in_batches(
    images: Iterable[ImageViews], read: Read, encoder: Encoder, make_views: ViewMaker, size: int
) -> Iterator[Embedded]:
    """Threads decode; the device resamples and encodes batches of exactly `size` views, across images.

    The results are still on the device and may not be computed yet: the caller waits when it fetches them.
    """

    def decode(image: ImageViews) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        picture = read(image)
        both = [to_tensor(picture).contiguous(), make_views.whole(picture)]
        # A copy to the GPU overlaps with its work only from pinned memory.
        pixels, whole = [tensor.pin_memory() for tensor in both] if encoder.device.type == "cuda" else both
        return pixels, whole, image.boxes

    counts: deque[int] = deque()

    def views() -> Iterator[torch.Tensor]:
        for pixels, whole, boxes in in_order(decode, images, threads=torch.get_num_threads()):
            counts.append(1 + len(boxes))
            there = pixels.to(encoder.device, non_blocking=True)
            crops = resample_together(there, boxes, make_views.size, make_views.interpolation)
            yield torch.cat([whole.to(encoder.device, non_blocking=True), crops])

    waiting = torch.zeros(0, encoder.meta.embedding_dim, device=encoder.device)
    for batch, real in batches(views(), size):
        waiting = torch.cat([waiting, encoder.encode_images(batch)[:real]])
        while counts and len(waiting) >= counts[0]:
            count = counts.popleft()
            yield Embedded.of(waiting[:count])
            waiting = waiting[count:]


def batches(views: Iterable[torch.Tensor], size: int) -> Iterator[tuple[torch.Tensor, int]]:
    """Regroup the views of consecutive images into batches of exactly `size`; the last is filled with zeros.

    Yields:
        [size, 3, S, S] uint8 and how many of it are real.
    """
    waiting: list[torch.Tensor] = []
    count = 0
    for tensor in views:
        waiting.append(tensor)
        count += len(tensor)
        if count >= size:
            joined = torch.cat(waiting)
            whole = count - count % size
            yield from ((batch, size) for batch in joined[:whole].split(size))
            waiting, count = [joined[whole:]], count % size
    if count:
        joined = torch.cat(waiting)
        yield torch.cat([joined, joined.new_zeros(size - count, *joined.shape[1:])]), count


def read_image(root: str, image: ImageViews) -> Image.Image:
    """Read and decode an image.

    Raises:
        UserError: it cannot be read, or has changed since `ingest`.
    """
    try:
        data = read_bytes(root, image.image_id)
        if content_digest(data) != image.content:
            raise UserError(f"image '{image.image_id}' under '{root}' has changed since ingest; run `dvc repro`")
        return open_rgb(io.BytesIO(data))
    except UNREADABLE as error:
        raise UserError(
            f"image '{image.image_id}' under '{root}' cannot be read ({error}); replace or remove it and run "
            "`dvc repro`"
        ) from None


def read_bytes(root: str, image_id: str) -> bytes:
    """The bytes of a file under a folder or an fsspec URL.

    Raises:
        UserError: the URL's scheme is unknown or needs a package that is not installed.
    """
    if "://" not in root:
        return read_file(Path(root) / image_id)
    try:
        with fsspec.open(f"{root.rstrip('/')}/{image_id}", "rb") as file:
            data: bytes = file.read()
    except (ImportError, ValueError) as error:  # the scheme is unknown to fsspec, or its package is not installed
        raise UserError(f"images under '{root}' cannot be read here: {' '.join(str(error).split())}") from None
    return data
