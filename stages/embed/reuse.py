"""Using rows of earlier shards again, so that nothing is embedded twice."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from pathlib import Path

import numpy as np

from stages.common.artifacts import VIEWS, EncoderMeta
from stages.common.columns import WHOLE
from stages.common.digests import digest
from stages.common.errors import UserError
from stages.common.files import remove_leftovers
from stages.common.paths import old_views
from stages.common.tables import open_table
from stages.common.views import Rows, ShardRows, read_shard, shard_paths
from stages.embed.encode import Embedded
from stages.embed.shards import ImageViews, Shard


@dataclass(frozen=True)
class Work:
    """A shard to be written: the rows that exist, and the views to embed."""

    shard: Shard
    there: list[Rows | None]
    """For each image the rows of earlier shards, or None."""
    missing: list[ImageViews]
    """Images with the views to embed, in order, without complete images."""


def set_aside(folder: Path, shards: Iterable[Shard]) -> set[Path]:
    """Move every outdated shard to `paths.old_views`, and remove broken ones.

    Returns:
        The paths of the shards that are right.
    """
    right = {shard.path for shard in shards if shard.is_done()}
    remove_leftovers(folder, "part-*.parquet")
    for path in sorted(set(shard_paths(folder)) - right):
        try:
            name = digest(open_table(path, VIEWS, earlier=True).meta.model_dump(mode="json"))
        except UserError:
            path.unlink()
            continue
        old_views(folder).mkdir(exist_ok=True)
        path.replace(old_views(folder) / f"{name}.parquet")
    return right


class OldViews:
    """The rows of the shards that were set aside, found by the digest of their image and its crops."""

    def __init__(self, folder: Path, model: EncoderMeta) -> None:
        """Only shards of this very `model` and precision count, also those of format 1."""
        self._where: dict[str, list[tuple[Path, int]]] = {}
        for path in sorted(old_views(folder).glob("*.parquet")):
            with suppress(UserError):
                meta = open_table(path, VIEWS, earlier=True).meta
                made_by = meta.encoder()
                if made_by.same_model(model) and made_by.precision == model.precision and meta.shard:
                    for place, crops_digest in enumerate(meta.shard.crops_digests):
                        self._where.setdefault(crops_digest, []).append((path, place))
        self._read = lru_cache(maxsize=4)(_read_if_sound)

    def find(self, image: ImageViews) -> Rows | None:
        """The rows of `image` that are still wanted, including the whole image."""
        if image.crops_digest not in self._where:
            return None
        # If a run was interrupted and then changed, several shards may each hold a part of them.
        read = [(self._read(path), place) for path, place in self._where[image.crops_digest]]
        parts = [shard.of_image(place) for shard, place in read if shard is not None]
        if not parts:
            return None
        rows = reduce(_join, parts)
        return rows.take(np.isin(rows.candidates, np.append(image.candidates, WHOLE)))

    def work(self, shard: Shard) -> Work:
        """What exists of a shard, and what is missing."""
        there = [self.find(image) for image in shard.images]
        missing = []
        for image, rows in zip(shard.images, there, strict=True):
            new = np.ones(len(image.candidates), bool) if rows is None else ~np.isin(image.candidates, rows.candidates)
            if rows is None or new.any():
                missing.append(replace(image, candidates=image.candidates[new], boxes=image.boxes[new]))
        return Work(shard, there, missing)


def _read_if_sound(path: Path) -> ShardRows | None:
    """The rows of an earlier shard; None if it is damaged, so that they are embedded again."""
    try:
        return read_shard(open_table(path, VIEWS, earlier=True))
    except UserError:
        return None


def assemble(work: Work, embedded: Iterable[Embedded]) -> Iterator[Rows]:
    """The rows of each image of a shard: old and new ones together.

    Args:
        embedded: of `work.missing`, in order, in the CPU's memory.
    """
    fresh = {image.image_id: (image, made) for image, made in zip(work.missing, embedded, strict=True)}
    for image, there in zip(work.shard.images, work.there, strict=True):
        if image.image_id in fresh:
            asked, made = fresh[image.image_id]
            # The whole image is embedded again with new crops, because their similarity is to it before rounding.
            candidates = np.concatenate([[WHOLE], asked.candidates]).astype(np.int32)
            new = Rows(candidates, made.similarity.numpy(), made.embeddings.numpy())
            there = new if there is None else _join(new, there)
        assert there is not None
        yield there


def _join(new: Rows, old: Rows) -> Rows:
    """New rows, and old ones that are not replaced, in the order of candidates."""
    stays = ~np.isin(old.candidates, new.candidates)
    order = np.argsort(np.concatenate([new.candidates, old.candidates[stays]]))
    pairs = ((new.candidates, old.candidates), (new.similarity, old.similarity), (new.embeddings, old.embeddings))
    return Rows(*(np.concatenate([ours, theirs[stays]])[order] for ours, theirs in pairs))


def forget(folder: Path) -> None:
    """Remove what was set aside, once all shards are written."""
    shutil.rmtree(old_views(folder), ignore_errors=True)
