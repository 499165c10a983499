"""Never twice: rows of earlier shards serve again, wherever their image or their crop now belongs."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from pathlib import Path

import numpy as np

from stages.common.errors import UserError
from stages.common.tables import Meta, digest, embedding_rows, read_meta, read_table
from stages.embed.encode import Embedded
from stages.embed.shards import ImageViews, Rows, Shard
from stages.embed.views import WHOLE


@dataclass(frozen=True)
class Work:
    """A shard to be written: what is there of it, and what has to be embedded."""

    shard: Shard
    there: list[Rows | None]
    """Of each image the rows that earlier shards have; None where they have none."""
    missing: list[ImageViews]
    """Images with the views to embed, in order; those of which nothing is missing are left out."""


def old_folder(folder: Path) -> Path:
    """Where shards that are no longer right wait until those in their place are written."""
    return folder / ".old"


def set_aside(folder: Path, shards: Iterable[Shard]) -> set[Path]:
    """Move every shard that is not one of `shards` as it should be to `old_folder`, and remove broken ones.

    Returns:
        The paths of the shards that are right.
    """
    right = {shard.path for shard in shards if shard.is_done()}
    for path in folder.glob(".part-*.tmp"):  # what a killed run left
        path.unlink()
    for path in sorted(set(folder.glob("part-*.parquet")) - right):
        try:
            name = digest(read_meta(path, "views"))
        except UserError:
            path.unlink()
            continue
        old_folder(folder).mkdir(exist_ok=True)
        path.replace(old_folder(folder) / f"{name}.parquet")
    return right


class OldViews:
    """The rows of the shards that were set aside, found by the drawing of their image."""

    def __init__(self, folder: Path, model: Meta) -> None:
        """Only shards of this very `model` (and precision) count."""
        self._where: dict[str, list[tuple[Path, int]]] = {}
        for path in sorted(old_folder(folder).glob("*.parquet")):
            with suppress(UserError, KeyError):
                meta = read_meta(path, "views")
                if meta["model"] == model:
                    for place, drawing in enumerate(meta["shard"]["drawings"]):
                        self._where.setdefault(drawing, []).append((path, place))
        self._read = lru_cache(maxsize=4)(_read_shard)

    def find(self, image: ImageViews) -> Rows | None:
        """The rows of views of `image` that are still wanted, the whole image among them."""
        if image.drawing not in self._where:
            return None
        # After a run that was interrupted and then changed, several shards may each have a part of them.
        rows = reduce(_join, (self._rows(path, place) for path, place in self._where[image.drawing]))
        return rows.take(np.isin(rows.candidates, np.append(image.candidates, WHOLE)))

    def _rows(self, path: Path, place: int) -> Rows:
        rows, starts = self._read(path)
        return rows.take(slice(starts[place], starts[place + 1]))

    def work(self, shard: Shard) -> Work:
        """What there is of a shard, and what is missing."""
        there = [self.find(image) for image in shard.images]
        missing = []
        for image, rows in zip(shard.images, there, strict=True):
            new = np.ones(len(image.candidates), bool) if rows is None else ~np.isin(image.candidates, rows.candidates)
            if rows is None or new.any():
                missing.append(replace(image, candidates=image.candidates[new], boxes=image.boxes[new]))
        return Work(shard, there, missing)


def _read_shard(path: Path) -> tuple[Rows, np.ndarray]:
    """All rows of a shard, and where those of each image start, with the end."""
    table = read_table(path, "views")[0].combine_chunks()
    candidates = table["candidate"].to_numpy()
    rows = Rows(candidates, table["similarity"].to_numpy(), embedding_rows(table["embedding"]))
    return rows, np.append(np.flatnonzero(candidates == WHOLE), len(candidates))


def assemble(work: Work, embedded: Iterable[Embedded]) -> Iterator[Rows]:
    """The rows of each image of a shard, those that were there and new ones together.

    Args:
        embedded: of `work.missing`, in order, in the CPU's memory.
    """
    fresh = {image.image_id: (image, made) for image, made in zip(work.missing, embedded, strict=True)}
    for image, there in zip(work.shard.images, work.there, strict=True):
        if image.image_id in fresh:
            asked, made = fresh[image.image_id]
            # The whole image is embedded once more with new crops: their similarity is to it, before rounding.
            candidates = np.concatenate([[WHOLE], asked.candidates]).astype(np.int32)
            new = Rows(candidates, made.similarity.numpy(), made.embeddings.numpy())
            there = new if there is None else _join(new, there)
        assert there is not None
        yield there


def _join(new: Rows, old: Rows) -> Rows:
    """New rows and those old ones that are not replaced, in the order of candidates."""
    stays = ~np.isin(old.candidates, new.candidates)
    order = np.argsort(np.concatenate([new.candidates, old.candidates[stays]]))
    pairs = ((new.candidates, old.candidates), (new.similarity, old.similarity), (new.embeddings, old.embeddings))
    return Rows(*(np.concatenate([ours, theirs[stays]])[order] for ours, theirs in pairs))


def forget(folder: Path) -> None:
    """Remove what was set aside, once all shards are written."""
    shutil.rmtree(old_folder(folder), ignore_errors=True)
