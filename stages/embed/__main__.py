"""embed: images and `boxes.parquet` -> `data/<dataset>/<model>/views/part-*.parquet`, one row a view.

Shards that are there and were made from the same images, boxes and model are kept: an interrupted run continues after
its last whole shard. Of other shards every row is used that shows a wanted view.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from itertools import chain, islice, tee

import numpy as np
from tqdm import tqdm

from stages.common import paths
from stages.common.cli import Job, parse_job
from stages.common.encoders import Encoder, has_unit_norm, load_encoder, require_unit
from stages.common.errors import run
from stages.common.overlap import write_behind
from stages.common.tables import Meta, make_meta, open_parquet, read_meta
from stages.common.unpacked import ensure_unpacked
from stages.embed.encode import Embedded, embed_images, fetch
from stages.embed.reuse import OldViews, Work, assemble, forget, set_aside
from stages.embed.shards import Shard, plan_shards, write_shard

EmbedShards = Callable[[Iterable[Work], Callable[[int], object]], Iterator[tuple[Work, list[Embedded]]]]
"""Gives each shard's missing embeddings, shards in any order, and reports the images done meanwhile."""


def main() -> None:
    job = parse_job("embed", __doc__, "dataset", "model")
    if job.params.embed.engine == "ray":
        from stages.embed.cluster import Cluster

        # Ray tells of lost nodes on standard output, where only this stage's own line belongs.
        with redirect_stdout(io.StringIO()), Cluster(job) as cluster:
            line = embed_dataset(job, cluster.model, cluster.embed)
        print(line)
        return
    encoder = load_encoder(job.model, job.params)
    print(embed_dataset(job, encoder.meta, embed_here(job, encoder)))


def embed_here(job: Job, encoder: Encoder) -> EmbedShards:
    """`embed.engine: local`."""
    root: str = read_meta(paths.images(job.dataset), "images")["parameters"]["root"]

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


def embed_dataset(job: Job, model: Meta, embed: EmbedShards) -> str:
    """Bring the shards of a data set up to date; returns the line to print.

    Args:
        model: `Encoder.meta` of the encoder that `embed` uses.
        embed: gives each shard's missing embeddings, shards in any order, and reports the images done meanwhile. It
            is given those shards alone of which something is missing.

    Raises:
        UserError: what does not belong together, or an image that cannot be read.
    """
    folder = paths.views(job.dataset, job.model)
    images_path, boxes_path = paths.images(job.dataset), paths.boxes(job.dataset)
    crop = read_meta(boxes_path, "boxes")["parameters"]
    meta = make_meta("views", job.dataset, parameters={"crop": crop}, model=model)
    per_shard = job.params.embed.images_per_shard

    def plan() -> Iterator[Shard]:
        return plan_shards(images_path, boxes_path, folder, per_shard, meta)

    root: str = read_meta(images_path, "images")["parameters"]["root"]
    remote = job.params.embed.engine == "ray" and job.params.datasets[job.dataset].remote_root is not None
    right = set_aside(folder, plan())
    old = OldViews(folder, model)
    counts = dict.fromkeys(("shards", "images", "views"), 0)
    with (
        tqdm(total=open_parquet(images_path).metadata.num_rows, desc="embed", unit="image", disable=None) as progress,
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
                elif work:  # only laid out anew: free it before reading the next image
                    finish(work, [])

        for work, embedded in embed(works(), progress.update):
            finish(work, embedded)
    forget(folder)
    kept = f"; {len(right)} shards were there" if right else ""
    return f"embed {job.dataset} {job.model}: {summary(**counts)}{kept}"


def write(work: Work, embedded: list[Embedded], model: str) -> None:
    """Write the shard: in a thread of its own, where fetching from a GPU may wait.

    Raises:
        UserError: an embedding is not finite, or is zero.
    """
    made = fetch(embedded)
    unit = np.array([has_unit_norm(one.embeddings).all() for one in made], dtype=bool)
    precision = work.shard.meta["model"]["precision"]
    require_unit(unit, lambda row: f"a view of the image '{work.missing[row].image_id}'", model, precision)
    write_shard(work.shard, list(assemble(work, made)))


def summary(shards: int, images: int, views: int) -> str:
    return f"{views} views of {images} images embedded, {shards} shards written"


if __name__ == "__main__":
    run(main)
