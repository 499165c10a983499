"""Reading the shards of an embedded data set, checked, a batch of images at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.common.errors import UserError
from stages.common.overlap import read_ahead
from stages.common.tables import (
    Meta,
    digest,
    finite_rows,
    model_identity,
    open_parquet,
    read_meta,
    read_table,
    require_same,
)
from stages.score.methods import ALL, REFINED


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


def find_shards(
    folder: Path, texts: tuple[Path, Meta], boxes: tuple[Path, Meta], images: tuple[Path, Sequence[Sequence[str]]]
) -> list[Path]:
    """The shards of a data set in order, checked to belong to the texts, to the boxes, the images and each other.

    Args:
        images: with the image_id and the content digest of every image, in order.

    Raises:
        UserError: no shards, a missing one, or one of another model, other boxes, other images or another data set.
    """
    paths = sorted(folder.glob("part-*.parquet"))
    if not paths:
        raise UserError(f"no shards in {folder}; make them with `dvc repro embed`, or fetch them with `dvc pull`")
    total = 0
    precision = None
    for index, path in enumerate(paths):
        meta = read_meta(path, "views")
        mend = f"delete {folder} and run `dvc repro embed`, or fetch the shards that belong here"
        require_same("dataset", (path, meta["dataset"]), (texts[0], texts[1]["dataset"]), mend)
        require_same("model", (path, model_identity(meta)), (texts[0], model_identity(texts[1])), mend)
        require_same("crop", (path, meta["parameters"]["crop"]), (boxes[0], boxes[1]["parameters"]), mend)
        precision = precision or meta["model"]["precision"]
        require_same("precision", (path, meta["model"]["precision"]), (paths[0], precision), mend)
        if meta["shard"]["index"] != index:
            raise UserError(f"{folder} lacks shard {index}; run `dvc repro embed`")
        here = list(images[1][total : total + meta["shard"]["images"]])
        if meta["shard"]["content"] != digest(here):
            raise UserError(f"{path} holds views of other images than {images[0]} lists; run `dvc repro embed`")
        total += meta["shard"]["images"]
    if total != len(images[1]):
        raise UserError(
            f"{folder} holds the views of {total} images, {images[0]} lists {len(images[1])}; run `dvc repro embed`"
        )
    return paths


def kept_candidates(path: Path, threshold: float, candidates: int) -> np.ndarray:
    """Which candidates of each image survive under `threshold`: [images, candidates] bool."""
    wanted = np.float32(threshold)
    pieces = []
    for batch in open_parquet(path).iter_batches(candidates * 1024, columns=["kept"]):
        lists = batch["kept"]
        rows = np.repeat(np.arange(len(lists)), np.diff(lists.offsets.to_numpy()))
        kept = np.zeros(len(lists), dtype=bool)
        kept[rows[lists.flatten().to_numpy() == wanted]] = True
        pieces.append(kept.reshape(-1, candidates))
    return np.concatenate(pieces)


def read_batches(
    shards: Sequence[Path], image_ids: Sequence[str], kept: np.ndarray, max_views: int, size: int
) -> Iterator[ViewBatch]:
    """All views, shard after shard, `size` images at a time.

    Args:
        image_ids: of the data set, in order.
        kept: [images, candidates] bool, the refined pool.
        max_views: the unfiltered pool is the first this many candidates.

    Raises:
        UserError: a shard whose rows are not of the images that its metadata promises, or are not finite.
    """
    first = 0
    for shard in read_ahead(_read_shards(shards, image_ids)):
        images = len(shard.starts) - 1
        for low in range(0, images, size):
            yield _pad(shard, slice(low, min(low + size, images)), first, kept, max_views)
        first += images


@dataclass(frozen=True)
class _Rows:
    """The N rows of a shard, image after image."""

    starts: np.ndarray
    """[images + 1] int64: where each image's rows start, and the end of the last."""
    candidate: np.ndarray
    """[N] int32, -1 in the first row of each image."""
    similarity: np.ndarray
    """[N] float32."""
    embeddings: np.ndarray
    """[N, D] float16."""


def _read_shards(shards: Sequence[Path], image_ids: Sequence[str]) -> Iterator[_Rows]:
    first = 0
    for path in shards:
        table = read_table(path, "views")[0].combine_chunks()
        candidate = table["candidate"].to_numpy()
        starts = np.flatnonzero(candidate < 0)
        ids = table["image_id"].take(starts).to_pylist()
        if ids != list(image_ids[first : first + len(ids)]):
            raise UserError(f"{path} has rows of other images than its metadata says; delete it, run `dvc repro embed`")
        first += len(ids)
        starts = np.append(starts, len(candidate))
        yield _Rows(starts, candidate, table["similarity"].to_numpy(), finite_rows(table, path, "image_id"))


def _pad(shard: _Rows, images: slice, first: int, kept: np.ndarray, max_views: int) -> ViewBatch:
    """Lay the rows of some images of a shard, whose first is image `first` of all, out as a rectangle."""
    starts, lengths = shard.starts[images], np.diff(shard.starts[images.start : images.stop + 1])
    rows = slice(starts[0], starts[0] + lengths.sum())
    candidate, embeddings = shard.candidate[rows], shard.embeddings[rows]
    image = np.repeat(np.arange(len(starts)), lengths)
    place = np.arange(len(candidate)) - np.repeat(starts - starts[0], lengths)
    shape = (len(starts), int(lengths.max()))
    first += images.start
    crop = candidate >= 0
    similarity = np.zeros(shape, dtype=np.float32)
    similarity[image, place] = shard.similarity[rows]
    pools = {ALL: crop & (candidate < max_views), REFINED: crop & kept[first + image, candidate]}
    grids = {name: np.zeros(shape, dtype=bool) for name in pools}
    for name, inside in pools.items():
        grids[name][image, place] = inside
    padded = np.zeros((*shape, embeddings.shape[1]), dtype=embeddings.dtype)
    padded[image, place] = embeddings
    return ViewBatch(first, padded, similarity, grids)
