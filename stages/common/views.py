"""The shards of view embeddings, `data/<dataset>/<model>/views/part-*.parquet`: the one reader, checked."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from stages.common import paths
from stages.common.artifacts import VIEWS, BoxesParameters, EncoderMeta, Metadata, ShardNote, ViewsParameters
from stages.common.columns import WHOLE, embedding_rows
from stages.common.crops import Crops, Images, open_boxes, read_crops, read_images
from stages.common.digests import digest
from stages.common.errors import UserError
from stages.common.tables import Opened, open_table, remake, require_same, require_same_model


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

    opened: list[Opened[ViewsParameters]]
    """Their files are closed: all of them together would be more than a process may open, and fill the memory."""
    images: Images
    model: EncoderMeta
    refined: np.ndarray | None
    """[images, candidates] bool: which candidates survive under the threshold that was asked for."""

    def read(self, wanted: Collection[str] | None = None) -> Iterator[ShardRows]:
        """The rows, shard after shard; where `wanted` is given, only of shards that have one of these images.

        Raises:
            UserError: as `read_shard`, or rows of other images than the metadata says.
        """
        first = 0
        for shard in self.opened:
            expected = self.images.image_ids[first : first + note_of(shard).images]
            first += len(expected)
            if wanted is not None and not any(image_id in wanted for image_id in expected):
                continue
            again = open_table(shard.path, VIEWS)
            if again.digests != shard.digests:
                raise UserError(f"{shard.path} was changed while it was read; run this again")
            rows = read_shard(again)
            if rows.image_ids != expected:
                raise UserError(f"{shard.path} has rows of other images than its metadata says; {remake(shard.path)}")
            yield rows


def shard_path(folder: Path, index: int) -> Path:
    return folder / f"part-{index:05d}.parquet"


def shard_paths(folder: Path) -> list[Path]:
    """The shards that are in a folder, in order."""
    return sorted(folder.glob("part-*.parquet"))


def read_shard(shard: Opened[ViewsParameters]) -> ShardRows:
    """All rows of a shard, verified.

    Raises:
        UserError: as `Opened.read`, or other crops than the metadata says.
    """
    table = shard.read().combine_chunks()
    candidates = table["candidate"].to_numpy()
    starts = np.flatnonzero(candidates == WHOLE)
    image_ids = table["image_id"].take(starts).to_pylist()
    starts = np.append(starts, len(candidates))
    crops = [candidates[first + 1 : end] for first, end in pairwise(starts.tolist())]
    if hexdigest(*crops) != note_of(shard).candidates:
        raise UserError(f"{shard.path} has views of other crops than its metadata says; {remake(shard.path)}")
    embeddings = embedding_rows(table["embedding"])
    return ShardRows(candidates, table["similarity"].to_numpy(), embeddings, image_ids, starts)


def note_of(shard: Opened[ViewsParameters]) -> ShardNote:
    """What the shard's metadata says it holds.

    Raises:
        UserError: it does not say.
    """
    if shard.meta.shard is None:
        raise UserError(f"{shard.path}: its metadata does not say which images it holds; {remake(shard.path)}")
    return shard.meta.shard


def note_for(index: int, crops: Crops) -> ShardNote:
    """What the shard of these images must hold."""
    return ShardNote(
        index=index,
        images=len(crops.image_ids),
        content=digest([list(pair) for pair in zip(crops.image_ids, crops.contents, strict=True)]),
        crops_digests=[
            hexdigest(np.frombuffer(content.encode(), np.uint8), boxes)
            for content, boxes in zip(crops.contents, crops.boxes, strict=True)
        ],
        candidates=hexdigest(*(np.flatnonzero(own).astype(np.int32) for own in crops.wanted())),
    )


def hexdigest(*arrays: np.ndarray) -> str:
    """64-bit hex digest of arrays of little-endian integers, equal on every machine."""
    state = hashlib.blake2b(digest_size=8)
    for array in arrays:
        state.update(len(array).to_bytes(8, "little"))
        state.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return state.hexdigest()


def find_shards(dataset: str, model: str, other: tuple[Path, Metadata], threshold: float | None = None) -> Shards:
    """The shards of a data set and model, checked against its images and boxes, each other, and another artifact.

    Args:
        other: path and metadata of what the views are used with: texts, or predictions.
        threshold: IoU threshold of `Shards.refined`.

    Raises:
        UserError: no shards, a missing one, or one of another model, other boxes, other images or another data set.
    """
    return open_shards(paths.views(dataset, model), read_images(dataset), open_boxes(dataset), other, threshold)


def open_shards(
    folder: Path,
    images: Images,
    boxes: Opened[BoxesParameters],
    other: tuple[Path, Metadata] | None,
    threshold: float | None = None,
) -> Shards:
    """The shards in a folder, checked as `find_shards` says.

    Args:
        other: None: the views are not used with another artifact.

    Raises:
        UserError: as `find_shards`.
    """
    found = shard_paths(folder)
    if not found:
        raise UserError(f"no shards in {folder}; make them with `dvc repro embed`, or fetch them with `dvc pull`")
    remedy = f"delete {folder} and run `dvc repro embed`, or fetch the shards that belong here"
    opened = [_opened_and_closed(path, boxes.meta.dataset) for path in found]
    first = opened[0]
    for number, shard in enumerate(opened):
        if note_of(shard).index != number:
            raise UserError(f"{folder} lacks shard {number}; run `dvc repro embed`")
        partner = (other[0], other[1].encoder()) if other else (first.path, first.meta.encoder())
        require_same_model((shard.path, shard.meta.encoder()), partner, remedy)
        crop = (shard.path, shard.meta.parameters.crop.model_dump())
        require_same("crop", crop, (boxes.path, boxes.meta.parameters.model_dump()), remedy)
        precisions = [(one.path, one.meta.encoder().precision) for one in (shard, first)]
        require_same("precision", precisions[0], precisions[1], remedy)
    total = sum(note_of(shard).images for shard in opened)
    if total != len(images):
        raise UserError(
            f"{folder} holds the views of {total} images, {images.path} lists {len(images)}; run `dvc repro embed`"
        )
    refined = []
    # To the end, because only then are the boxes verified. Shards that fit so far and have as many images in all do not
    # run out.
    for index, crops in enumerate(read_crops(boxes, images, note_of(first).images)):
        _require_note(opened[index], note_for(index, crops), images.path, boxes.path)
        if threshold is not None:
            refined.append(crops.refined(threshold))
    return Shards(opened, images, first.meta.encoder(), np.concatenate(refined) if refined else None)


def _opened_and_closed(path: Path, dataset: str) -> Opened[ViewsParameters]:
    shard = open_table(path, VIEWS, dataset)
    shard.file.close()
    return shard


def _require_note(shard: Opened[ViewsParameters], wanted: ShardNote, images: Path, boxes: Path) -> None:
    """Refuse a shard that holds something else than it must."""
    there = note_of(shard)
    if (there.images, there.content) != (wanted.images, wanted.content):
        raise UserError(f"{shard.path} holds views of other images than {images} lists; run `dvc repro embed`")
    if there != wanted:
        raise UserError(f"{shard.path} holds views of other crops than {boxes} lists; run `dvc repro embed`")
