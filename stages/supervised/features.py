"""From cached views to one vector an image: the whole image, and the mean of its crops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from stages.common.alignment import normalized
from stages.common.columns import WHOLE as WHOLE_IMAGE
from stages.common.methods import WHOLE
from stages.common.overlap import read_ahead
from stages.common.views import ShardRows, Shards


def read_features(shards: Shards, max_views: int, pools: Sequence[str]) -> dict[str, np.ndarray]:
    """The vectors of all images; only one shard's views are in memory at a time.

    Args:
        max_views: the pool ALL is the first this many candidates.
        pools: WHOLE, or WHOLE and ALL.

    Returns:
        pool -> [N, D] float32 of unit norm.

    Raises:
        UserError: as `Shards.read`.
    """
    size = len(shards.images), shards.model.embedding_dim
    found = {pool: np.empty(size, np.float32) for pool in pools}
    first = 0
    with tqdm(total=size[0], desc="features", unit="image", disable=None) as progress:
        for shard in read_ahead(shards.read()):
            span = slice(first, first + len(shard.image_ids))
            for pool, rows in found.items():
                rows[span] = whole_images(shard) if pool == WHOLE else mean_crops(shard, max_views)
            first = span.stop
            progress.update(len(shard.image_ids))
    return found


def whole_images(shard: ShardRows) -> np.ndarray:
    """The whole-image views of a shard's B images: [B, D] float32 of unit norm."""
    return normalized(_float32(shard.embeddings[shard.starts[:-1]]))


def mean_crops(shard: ShardRows, max_views: int) -> np.ndarray:
    """The mean of the first `max_views` candidates of each of B images: [B, D] float32 of unit norm."""
    inside = (shard.candidates != WHOLE_IMAGE) & (shard.candidates < max_views)
    starts = np.append(0, np.cumsum(inside))[shard.starts[:-1]]
    return normalized(np.add.reduceat(_float32(shard.embeddings[inside]), starts, axis=0))


def _float32(embeddings: np.ndarray) -> np.ndarray:
    """Torch converts float16 17 times as fast as NumPy."""
    return torch.from_numpy(np.ascontiguousarray(embeddings)).float().numpy()
