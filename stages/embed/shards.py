"""Shards: the unit of work, of restart and of sharing. One Parquet file holds the views of a run of images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.common.errors import UserError
from stages.common.tables import (
    Meta,
    digest,
    embedding_column,
    open_parquet,
    read_meta,
    read_table,
    require_same,
    write_table,
)


@dataclass(frozen=True)
class ImageViews:
    """The views to embed of one image."""

    image_id: str
    content: str
    """Digest of the file's bytes."""
    candidates: np.ndarray
    """[V] int32: which candidates."""
    boxes: np.ndarray
    """[V, 4] int32 pixels."""


@dataclass(frozen=True)
class Shard:
    """A run of images, and what their shard's file must say to be taken as it is."""

    path: Path
    images: list[ImageViews]
    meta: Meta

    def is_done(self) -> bool:
        """Whether the file is there, whole, and made from exactly this."""
        if not self.path.exists():
            return False
        try:
            return read_meta(self.path, "views") == self.meta
        except UserError:
            return False


def shard_path(folder: Path, index: int) -> Path:
    return folder / f"part-{index:05d}.parquet"


def plan_shards(
    images_path: Path, boxes_path: Path, folder: Path, images_per_shard: int, meta: Meta
) -> Iterator[Shard]:
    """Cut the data set into shards, reading boxes shard by shard.

    What is embedded is the union of the unfiltered pool (the first `max_views` candidates) and of every crop that
    survives under some threshold, each once.

    Args:
        meta: what all shards share; each gets its number and a fingerprint of its images and boxes.

    Raises:
        UserError: boxes that were not made from these images.
    """
    table, _ = read_table(images_path, "images", ["image_id", "content"])
    image_ids, contents = table["image_id"].to_pylist(), table["content"].to_pylist()
    crop = read_meta(boxes_path, "boxes")["parameters"]
    candidates, max_views = crop["candidates"], crop["max_views"]
    file = open_parquet(boxes_path)
    rows = (boxes_path, file.metadata.num_rows)
    require_same("rows", (images_path, len(image_ids) * candidates), rows, "run `dvc repro crop`")
    for index, batch in enumerate(file.iter_batches(candidates * images_per_shard)):
        first = index * images_per_shard
        images = [
            _image_views(image_id, content, batch.slice(place * candidates, candidates), max_views, boxes_path)
            for place, (image_id, content) in enumerate(
                zip(image_ids[first : first + images_per_shard], contents[first:], strict=False)
            )
        ]
        fingerprint = digest([[i.image_id, i.content, i.candidates.tolist(), i.boxes.tolist()] for i in images])
        # By this a reader that does not know the boxes tells whether the shard is of the present images.
        content = digest([[i.image_id, i.content] for i in images])
        shard = {"index": index, "images": len(images), "content": content, "fingerprint": fingerprint}
        shard_meta = {**meta, "shard": shard}
        yield Shard(shard_path(folder, index), images, shard_meta)


def _image_views(image_id: str, content: str, rows: pa.RecordBatch, max_views: int, path: Path) -> ImageViews:
    if len(rows) == 0 or rows["image_id"][0].as_py() != image_id or rows["image_id"][-1].as_py() != image_id:
        raise UserError(f"{path} was not made from the present images (no boxes of '{image_id}'); run `dvc repro crop`")
    candidates = rows["candidate"].to_numpy()
    wanted = (candidates < max_views) | (np.diff(rows["kept"].offsets.to_numpy()) > 0)
    boxes = np.stack([rows[edge].to_numpy() for edge in ("left", "top", "right", "bottom")], axis=1)
    return ImageViews(image_id, content, candidates[wanted], boxes[wanted])


def write_shard(shard: Shard, candidates: np.ndarray, embeddings: np.ndarray) -> None:
    """Write a shard, whole or not at all.

    Args:
        candidates: [N] int32 over all views of all its images, -1 first for each.
        embeddings: [N, D] float32 of unit norm, in the same order.
    """
    views_of = [1 + len(image.candidates) for image in shard.images]
    whole_rows = np.concatenate([[0], np.cumsum(views_of)[:-1]])
    whole = np.repeat(embeddings[whole_rows], views_of, axis=0)
    table = pa.table(
        {
            "image_id": pa.array([i.image_id for i in shard.images]).take(
                np.repeat(np.arange(len(views_of)), views_of)
            ),
            "candidate": candidates.astype(np.int32),
            "similarity": np.einsum("nd,nd->n", embeddings, whole).astype(np.float32),
            "embedding": embedding_column(embeddings.astype(np.float16)),
        }
    )
    write_table(shard.path, table, shard.meta)
