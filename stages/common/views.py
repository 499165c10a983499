"""The shards of view embeddings, `data/<dataset>/<model>/views/part-*.parquet`: the one reader, checked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.common import paths
from stages.common.artifacts import BOXES, FORMAT, IMAGES, VIEWS, EncoderMeta, Metadata
from stages.common.errors import UserError
from stages.common.tables import digest, finite_rows, read_meta, read_table, require_same, require_same_model

WHOLE = -1
"""The `candidate` of the view that is the whole image; it is the first of an image's rows."""


@dataclass(frozen=True)
class Rows:
    """N views: those of one image, or of several, one image after the other."""

    candidates: np.ndarray
    """[N] int32; WHOLE is the whole image."""
    similarity: np.ndarray
    """[N] float32, cosine to the whole image."""
    embeddings: np.ndarray
    """[N, D] float16, of unit norm before rounding."""

    def take(self, which: slice | np.ndarray) -> Rows:
        """Some of the rows: a span, or those where a [N] bool is true."""
        return Rows(self.candidates[which], self.similarity[which], self.embeddings[which])


@dataclass(frozen=True)
class ShardRows(Rows):
    """The rows of a shard."""

    image_ids: list[str]
    """Of its B images."""
    starts: np.ndarray
    """[B + 1] int64: where each image's rows start, and the end of the last."""

    def of_image(self, place: int) -> Rows:
        """The rows of the image at this place in the shard."""
        return self.take(slice(self.starts[place], self.starts[place + 1]))


@dataclass(frozen=True)
class Shards:
    """The shards of a data set and model, in order, checked to belong to the present images and boxes."""

    paths: list[Path]
    image_ids: list[str]
    """Of the data set, in order."""
    counts: list[int]
    """Images of each shard."""
    model: EncoderMeta

    def read(self, wanted: Collection[str] | None = None) -> Iterator[ShardRows]:
        """The rows, shard after shard; where `wanted` is given, only of shards that have one of these images.

        Raises:
            UserError: a shard whose rows are not of the images that its metadata promises, or are not finite.
        """
        first = 0
        for path, count in zip(self.paths, self.counts, strict=True):
            expected = self.image_ids[first : first + count]
            first += count
            if wanted is not None and not any(image_id in wanted for image_id in expected):
                continue
            rows = read_shard(path)
            if rows.image_ids != expected:
                raise UserError(
                    f"{path} has rows of other images than its metadata says; delete it and run `dvc repro embed`"
                )
            yield rows


def shard_path(folder: Path, index: int) -> Path:
    return folder / f"part-{index:05d}.parquet"


def shard_paths(folder: Path) -> list[Path]:
    """The shards that are in a folder, in order."""
    return sorted(folder.glob("part-*.parquet"))


def read_shard(path: Path, formats: Sequence[int] = (FORMAT,)) -> ShardRows:
    """All rows of a shard.

    Raises:
        UserError: as `read_table`, or an embedding or similarity is not finite.
    """
    table = read_table(path, VIEWS, formats=formats)[0].combine_chunks()
    candidates = table["candidate"].to_numpy()
    starts = np.flatnonzero(candidates == WHOLE)
    image_ids = table["image_id"].take(starts).to_pylist()
    embeddings = finite_rows(table, path, "image_id")
    return ShardRows(
        candidates, table["similarity"].to_numpy(), embeddings, image_ids, np.append(starts, len(candidates))
    )


def find_shards(dataset: str, model: str, other: tuple[Path, Metadata]) -> Shards:
    """The shards of a data set and model, checked against its images and boxes, each other, and another artifact.

    Args:
        other: path and metadata of what the views are used with: texts, or predictions.

    Raises:
        UserError: no shards, a missing one, or one of another model, other boxes, other images or another data set.
    """
    folder, images_path, boxes_path = paths.views(dataset, model), paths.images(dataset), paths.boxes(dataset)
    found = shard_paths(folder)
    if not found:
        raise UserError(f"no shards in {folder}; make them with `dvc repro embed`, or fetch them with `dvc pull`")
    images = read_table(images_path, IMAGES, ["image_id", "content"])[0]
    listed = [list(pair) for pair in zip(images["image_id"].to_pylist(), images["content"].to_pylist(), strict=True)]
    boxes = read_meta(boxes_path, BOXES)
    remedy = f"delete {folder} and run `dvc repro embed`, or fetch the shards that belong here"
    counts: list[int] = []
    first, total = None, 0
    for index, path in enumerate(found):
        meta = read_meta(path, VIEWS)
        first = first or meta
        require_same("dataset", (path, meta.dataset), (other[0], other[1].dataset), remedy)
        require_same_model((path, meta.encoder()), (other[0], other[1].encoder()), remedy)
        crop = (path, meta.parameters.crop.model_dump())
        require_same("crop", crop, (boxes_path, boxes.parameters.model_dump()), remedy)
        precisions = [(at, m.encoder().precision) for at, m in ((path, meta), (found[0], first))]
        require_same("precision", precisions[0], precisions[1], remedy)
        counts.append(_checked_count(path, meta, index, images_path, listed, total))
        total += counts[-1]
    if total != len(listed):
        raise UserError(
            f"{folder} holds the views of {total} images, {images_path} lists {len(listed)}; run `dvc repro embed`"
        )
    assert first is not None
    return Shards(found, [image_id for image_id, _ in listed], counts, first.encoder())


def _checked_count(
    path: Path, meta: Metadata, index: int, images_path: Path, listed: list[list[str]], start: int
) -> int:
    """Images of the shard, whose number must be `index` and whose images must be those of `listed` from `start` on."""
    shard = meta.shard
    if shard is None or shard.index != index:
        raise UserError(f"{path.parent} lacks shard {index}; run `dvc repro embed`")
    if shard.content != digest(listed[start : start + shard.images]):
        raise UserError(f"{path} holds views of other images than {images_path} lists; run `dvc repro embed`")
    return shard.images
