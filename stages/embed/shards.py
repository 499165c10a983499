"""Shards: the unit of work, of restart and of sharing. One Parquet file holds the views of a run of images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.common.artifacts import BOXES, IMAGES, VIEWS, Metadata, ShardNote, ViewsParameters
from stages.common.errors import UserError
from stages.common.tables import (
    digest,
    embedding_column,
    open_parquet,
    read_meta,
    read_table,
    require_same,
    write_table,
)
from stages.common.views import Rows, shard_path


@dataclass(frozen=True)
class ImageViews:
    """The views to embed of one image."""

    image_id: str
    content: str
    """Digest of the file's bytes."""
    crops_digest: str
    """Digest of `content` and all candidate boxes, wanted or not. If two agree, their candidates have the same
    numbers."""
    candidates: np.ndarray
    """[V] int32: which candidates."""
    boxes: np.ndarray
    """[V, 4] int32 pixels."""


@dataclass(frozen=True)
class Shard:
    """A run of images, and the metadata that their shard must have to be kept."""

    path: Path
    images: list[ImageViews]
    meta: Metadata[ViewsParameters]

    def is_done(self) -> bool:
        """Whether the file exists, is whole and was made from exactly this. The model's notes do not count."""
        if not self.path.exists():
            return False
        try:
            there = read_meta(self.path, VIEWS)
        except UserError:
            return False
        return there.without_notes() == self.meta.without_notes()


def plan_shards(
    images_path: Path, boxes_path: Path, folder: Path, images_per_shard: int, meta: Metadata[ViewsParameters]
) -> Iterator[Shard]:
    """Cut the data set into shards, reading boxes shard by shard.

    What is embedded is the union of the unfiltered pool (the first `max_views` candidates) and of every crop that
    survives under some threshold, each once.

    Args:
        meta: what all shards share; each gets its number and a fingerprint of its images and boxes.

    Raises:
        UserError: boxes that were not made from these images.
    """
    table, _ = read_table(images_path, IMAGES, ["image_id", "content"])
    image_ids, contents = table["image_id"].to_pylist(), table["content"].to_pylist()
    crop = read_meta(boxes_path, BOXES).parameters
    candidates, max_views = crop.candidates, crop.max_views
    file = open_parquet(boxes_path)
    rows = (boxes_path, file.metadata.num_rows)
    require_same("rows", (images_path, len(image_ids) * candidates), rows, "run `dvc repro crop`")
    for index, batch in enumerate(file.iter_batches(candidates * images_per_shard)):
        first = index * images_per_shard
        last = min(first + images_per_shard, len(image_ids))
        images = [
            _image_views(
                image_ids[row],
                contents[row],
                batch.slice((row - first) * candidates, candidates),
                max_views,
                boxes_path,
            )
            for row in range(first, last)
        ]
        note = ShardNote(
            index=index,
            images=len(images),
            # With this, a reader that does not know the boxes can tell if the shard is of the present images.
            content=digest([[i.image_id, i.content] for i in images]),
            crops_digests=[i.crops_digest for i in images],
            candidates=hexdigest(*(i.candidates for i in images)),
        )
        yield Shard(shard_path(folder, index), images, meta.model_copy(update={"shard": note}))


def _image_views(image_id: str, content: str, rows: pa.RecordBatch, max_views: int, path: Path) -> ImageViews:
    if len(rows) == 0 or rows["image_id"][0].as_py() != image_id or rows["image_id"][-1].as_py() != image_id:
        raise UserError(f"{path} was not made from the present images (no boxes of '{image_id}'); run `dvc repro crop`")
    candidates = rows["candidate"].to_numpy()
    wanted = (candidates < max_views) | (np.diff(rows["kept"].offsets.to_numpy()) > 0)
    boxes = np.stack([rows[edge].to_numpy() for edge in ("left", "top", "right", "bottom")], axis=1)
    crops_digest = hexdigest(np.frombuffer(content.encode(), np.uint8), boxes)
    return ImageViews(image_id, content, crops_digest, candidates[wanted], boxes[wanted])


def hexdigest(*arrays: np.ndarray) -> str:
    """64-bit hex digest of arrays of little-endian integers, equal on every machine."""
    state = hashlib.blake2b(digest_size=8)
    for array in arrays:
        state.update(len(array).to_bytes(8, "little"))
        state.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return state.hexdigest()


def write_shard(shard: Shard, rows: Sequence[Rows]) -> None:
    """Write a shard, whole or not at all.

    Args:
        rows: those of each of its images, in order.
    """
    counts = [len(own.candidates) for own in rows]
    image_ids = pa.array([image.image_id for image in shard.images])
    table = pa.table(
        {
            "image_id": image_ids.take(np.repeat(np.arange(len(counts)), counts)),
            "candidate": np.concatenate([own.candidates for own in rows]),
            "similarity": np.concatenate([own.similarity for own in rows]),
            "embedding": embedding_column(np.concatenate([own.embeddings for own in rows])),
        }
    )
    write_table(shard.path, table, shard.meta)
