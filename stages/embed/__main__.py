"""embed: images and `boxes.parquet` -> `data/<dataset>/<model>/views/part-*.parquet`, one row a view.

Shards that are there and were made from the same images, boxes and model are kept: an interrupted run continues after
its last whole shard.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from stages.common import paths
from stages.common.cli import parse_job
from stages.common.encoders import Encoder, load_encoder
from stages.common.errors import UserError, run
from stages.common.images import UNREADABLE, content_digest, open_rgb
from stages.common.tables import make_meta, open_parquet, read_meta
from stages.embed.shards import ImageViews, Shard, plan_shards, shard_path, write_shard
from stages.embed.views import WHOLE, ViewMaker

PREFETCH = 4
"""Images whose views are prepared ahead of the encoder."""


def prepare(root: Path, make_views: ViewMaker, images: Sequence[ImageViews]) -> Iterator[torch.Tensor]:
    """The views of each image, in order, as [1 + V, 3, S, S] uint8; prepared ahead in threads.

    Raises:
        UserError: an image that cannot be read, or is another than `ingest` saw.
    """

    def one(image: ImageViews) -> torch.Tensor:
        try:
            data = (root / image.image_id).read_bytes()
            if content_digest(data) != image.content:
                raise UserError(f"image '{image.image_id}' under '{root}' has changed since ingest; run `dvc repro`")
            return make_views(open_rgb(io.BytesIO(data)), image.boxes)
        except UNREADABLE as error:
            raise UserError(
                f"image '{image.image_id}' under '{root}' cannot be read ({error}); replace or remove it and run "
                "`dvc repro`"
            ) from None

    # One thread a worker: the parallelism is over images, and the other cores belong to the encoder.
    workers = max(1, (os.cpu_count() or 2) // 2)
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        ahead: deque[Future[torch.Tensor]] = deque()
        try:
            for image in images:
                ahead.append(pool.submit(one, image))
                if len(ahead) > PREFETCH:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def batches(views: Iterable[torch.Tensor], size: int) -> Iterator[torch.Tensor]:
    """Regroup the views of image after image into batches of `size`; the last may be smaller."""
    waiting: list[torch.Tensor] = []
    count = 0
    for tensor in views:
        waiting.append(tensor)
        count += len(tensor)
        if count >= size:
            joined = torch.cat(waiting)
            whole = count - count % size
            yield from joined[:whole].split(size)
            waiting, count = [joined[whole:]], count % size
    if count:
        yield torch.cat(waiting)


def embed_shard(shard: Shard, root: Path, encoder: Encoder, make_views: ViewMaker, batch_size: int) -> int:
    """Embed one shard and write it. Batches do not cross shards, so that a shard's bytes depend on it alone.

    Returns:
        The number of views.
    """
    views = batches(prepare(root, make_views, shard.images), batch_size)
    embeddings = torch.cat([encoder.encode_images(batch).cpu() for batch in views]).numpy()
    candidates = np.concatenate([np.concatenate([[WHOLE], image.candidates]) for image in shard.images])
    write_shard(shard, candidates, embeddings)
    return len(embeddings)


def remove_strangers(folder: Path, shards: int) -> None:
    """Remove shards beyond the number wanted, of an earlier, larger data set, and what a killed run left behind."""
    expected = {shard_path(folder, index) for index in range(shards)}
    for path in [*folder.glob("part-*.parquet"), *folder.glob(".part-*.tmp")]:
        if path not in expected:
            path.unlink()


def main() -> None:
    job = parse_job("embed", __doc__, "dataset", "model")
    folder = paths.views(job.dataset, job.model)
    images_path, boxes_path = paths.images(job.dataset), paths.boxes(job.dataset)
    root = Path(read_meta(images_path, "images")["parameters"]["root"])
    crop = read_meta(boxes_path, "boxes")["parameters"]
    encoder = load_encoder(job.model, job.params)
    make_views = ViewMaker(encoder.meta["preprocess"], encoder.image_size)
    meta = make_meta("views", job.dataset, parameters={"crop": crop}, model=encoder.meta)
    images = open_parquet(images_path).metadata.num_rows
    per_shard = job.params.embed.images_per_shard
    remove_strangers(folder, -(-images // per_shard))
    views = fresh = reused = 0
    with tqdm(total=images, desc="embed", unit="image", disable=None) as progress:
        for shard in plan_shards(images_path, boxes_path, folder, per_shard, meta):
            if shard.is_done():
                reused += 1
            else:
                views += embed_shard(shard, root, encoder, make_views, job.params.embed.batch_size)
                fresh += 1
            progress.update(len(shard.images))
    kept = f"; {reused} shards were there" if reused else ""
    print(f"embed {job.dataset} {job.model}: {views} views in {fresh} shards{kept}")


if __name__ == "__main__":
    run(main)
