"""Reading the shards of an embedded data set, checked, a batch of images at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stages.common.columns import WHOLE
from stages.common.methods import ALL, REFINED
from stages.common.overlap import read_ahead
from stages.common.views import ShardRows, Shards


@dataclass(frozen=True)
class ViewBatch:
    """The views of B images, padded to the largest number P of views; row 0 of each is the whole image."""

    first: int
    """Place of the first image in `images.parquet`."""
    embeddings: np.ndarray
    """[B, P, D] float16, zero where padded."""
    similarity: np.ndarray
    """[B, P] float32, cosine to the whole image, zero where padded."""
    pools: dict[str, np.ndarray]
    """Name of a pool -> [B, P] bool."""


def read_batches(shards: Shards, max_views: int, size: int) -> Iterator[ViewBatch]:
    """All views, shard after shard, `size` images at a time.

    Args:
        shards: found with the threshold of the refined pool.
        max_views: the unfiltered pool is the first this many candidates.

    Raises:
        UserError: as `Shards.read`.
    """
    first, kept = 0, shards.refined
    assert kept is not None
    for shard in read_ahead(shards.read()):
        images = len(shard.image_ids)
        for low in range(0, images, size):
            yield _pad(shard, slice(low, min(low + size, images)), first, kept, max_views)
        first += images


def _pad(shard: ShardRows, images: slice, first: int, kept: np.ndarray, max_views: int) -> ViewBatch:
    """Pad the rows of some images of a shard to a rectangle. `first` is the place of the shard's first image."""
    starts, lengths = shard.starts[images], np.diff(shard.starts[images.start : images.stop + 1])
    rows = slice(starts[0], starts[0] + lengths.sum())
    candidate, embeddings = shard.candidates[rows], shard.embeddings[rows]
    image = np.repeat(np.arange(len(starts)), lengths)
    place = np.arange(len(candidate)) - np.repeat(starts - starts[0], lengths)
    shape = (len(starts), int(lengths.max()))
    first += images.start
    crop = candidate != WHOLE
    similarity = np.zeros(shape, dtype=np.float32)
    similarity[image, place] = shard.similarity[rows]
    pools = {ALL: crop & (candidate < max_views), REFINED: crop & kept[first + image, candidate]}
    grids = {name: np.zeros(shape, dtype=bool) for name in pools}
    for name, inside in pools.items():
        grids[name][image, place] = inside
    padded = np.zeros((*shape, embeddings.shape[1]), dtype=embeddings.dtype)
    padded[image, place] = embeddings
    return ViewBatch(first, padded, similarity, grids)
