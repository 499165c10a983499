"""Updating the shards of a data set: right ones are kept, and what is missing is embedded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, tee

import numpy as np
from tqdm import tqdm

from stages.common import paths
from stages.common.artifacts import IMAGES, VIEWS, EncoderMeta, ViewsParameters
from stages.common.cli import Job
from stages.common.crops import open_boxes, read_images
from stages.common.encoders import Encoder, has_unit_norm, require_unit
from stages.common.overlap import write_behind
from stages.common.tables import make_meta, read_meta
from stages.common.unpacked import ensure_unpacked, image_root
from stages.embed.encode import Embedded, embed_images, fetch
from stages.embed.reuse import OldViews, Work, assemble, forget, set_aside
from stages.embed.shards import Shard, plan_shards, write_shard

EmbedShards = Callable[[Iterable[Work], Callable[[int], object]], Iterator[tuple[Work, list[Embedded]]]]
"""Gives the missing embeddings of each shard, in any order of shards, and reports the images that are done."""


def embed_here(job: Job, encoder: Encoder) -> EmbedShards:
    """`embed.engine: local`."""
    root = local_root(job)

    def embed(works: Iterable[Work], advance: Callable[[int], object]) -> Iterator[tuple[Work, list[Embedded]]]:
        # Images are read ahead across shards, so that nothing waits at the border of two.
        ahead, now = tee(works)
        missing = chain.from_iterable(work.missing for work in ahead)
        embedded = embed_images(missing, root, encoder, job.params.embed.batch_size)
        for work in now:
            made = []
            for one in islice(embedded, len(work.missing)):
                made.append(one)
                advance(1)
            yield work, made

    return embed


def local_root(job: Job) -> str:
    """The folder on this machine that the data set's image_ids are relative to."""
    images = read_meta(paths.images(job.dataset), IMAGES, job.dataset)
    return image_root(job.dataset, job.params.datasets[job.dataset].root, images.parameters.unpacked)


def embed_dataset(job: Job, model: EncoderMeta, embed: EmbedShards) -> str:
    """Update the shards of a data set; returns the line to print.

    Args:
        model: `Encoder.meta` of the encoder that `embed` uses.
        embed: see `EmbedShards`. It gets only shards of which something is missing.

    Raises:
        UserError: artifacts that do not belong together, or an image that cannot be read.
    """
    folder = paths.views(job.dataset, job.model)
    images, boxes = read_images(job.dataset), open_boxes(job.dataset)
    meta = make_meta(VIEWS, job.dataset, ViewsParameters(crop=boxes.meta.parameters), model)
    per_shard = job.params.embed.images_per_shard

    def plan() -> Iterator[Shard]:
        return plan_shards(boxes, images, folder, per_shard, meta)

    root = local_root(job)
    remote = job.params.embed.engine == "ray" and job.params.datasets[job.dataset].remote_root is not None
    shards = -(-len(images) // per_shard)
    right = set_aside(folder, tqdm(plan(), desc="verify", total=shards, unit="shard", disable=None))
    old = OldViews(folder, model)
    counts = dict.fromkeys(("shards", "images", "views"), 0)
    with (
        tqdm(total=len(images), desc="embed", unit="image", disable=None) as progress,
        write_behind() as later,
    ):

        def finish(work: Work, embedded: list[Embedded]) -> None:
            counts["shards"] += 1
            counts["images"] += len(work.missing)
            counts["views"] += sum(1 + len(image.candidates) for image in work.missing)
            later(write, work, embedded, job.model)

        def works() -> Iterator[Work]:
            for shard in plan():
                work = None if shard.path in right else old.work(shard)
                progress.update(len(shard.images) - (len(work.missing) if work else 0))
                if work and work.missing:
                    if not remote:
                        ensure_unpacked(job.dataset, root, (image.image_id for image in work.missing))
                    yield work
                elif work:  # nothing to embed: free it before reading the next image
                    finish(work, [])

        for work, embedded in embed(works(), progress.update):
            finish(work, embedded)
    forget(folder)
    kept = f"; {len(right)} shards were there" if right else ""
    return f"embed {job.dataset} {job.model}: {summary(**counts)}{kept}"


def write(work: Work, embedded: list[Embedded], model: str) -> None:
    """Write the shard. It runs in its own thread, because fetching from a GPU may wait.

    Raises:
        UserError: an embedding is not finite, or is zero.
    """
    made = fetch(embedded)
    unit = np.array([has_unit_norm(one.embeddings).all() for one in made], dtype=bool)
    precision = work.shard.meta.encoder().precision
    require_unit(unit, lambda row: f"a view of the image '{work.missing[row].image_id}'", f"models.{model}", precision)
    write_shard(work.shard, list(assemble(work, made)))


def summary(shards: int, images: int, views: int) -> str:
    return f"{views} views of {images} images embedded, {shards} shards written"
