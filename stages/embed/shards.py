"""Shards: the unit of work, of restart and of sharing. One Parquet file holds the views of a run of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.common.artifacts import VIEWS, BoxesParameters, Metadata, ViewsParameters
from stages.common.columns import embedding_column
from stages.common.crops import Images, read_crops
from stages.common.errors import UserError, warn
from stages.common.tables import Opened, open_table, write_table
from stages.common.views import Rows, note_for, read_shard, shard_path


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
        """Whether the file was made from exactly this, and is what was written. The model's notes do not count,
        unless they have a path of one machine, which is to go.

        Warns of a file that was made from this and is damaged.
        """
        if not self.path.exists():
            return False
        try:
            there = open_table(self.path, VIEWS)
        except UserError:
            return False
        if there.meta.without_notes() != self.meta.without_notes():
            return False
        if there.meta.encoder() != there.meta.encoder().shareable():  # of an earlier version
            return False
        try:
            rows = read_shard(there)
        except UserError as error:
            warn(f"{str(error).split(';')[0]}; its views are embedded again")
            return False
        return rows.image_ids == [image.image_id for image in self.images]


def plan_shards(
    boxes: Opened[BoxesParameters],
    images: Images,
    folder: Path,
    images_per_shard: int,
    meta: Metadata[ViewsParameters],
) -> Iterator[Shard]:
    """Cut the data set into shards, reading boxes shard by shard.

    Args:
        meta: what all shards share; each gets its number and a fingerprint of its images and boxes.

    Raises:
        UserError: damaged boxes, or boxes that were not made from these images.
    """
    for index, crops in enumerate(read_crops(boxes, images, images_per_shard)):
        note = note_for(index, crops)
        own = []
        parts = zip(crops.image_ids, crops.contents, note.crops_digests, crops.boxes, crops.wanted(), strict=True)
        for image_id, content, crops_digest, corners, wanted in parts:
            candidates = np.flatnonzero(wanted).astype(np.int32)
            own.append(ImageViews(image_id, content, crops_digest, candidates, corners[wanted]))
        yield Shard(shard_path(folder, index), own, meta.model_copy(update={"shard": note}))


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
