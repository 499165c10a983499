"""Images to embeddings on disk on a CPU, ViT-B/32 with random weights: the baseline, ours, and the encoder alone.

Both sides embed the same crops of the same photos. The encoder alone runs on tensors that are in memory already, in
the placement of threads that is best for it.
"""

from __future__ import annotations

import os
import pickle
import statistics
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import torch

from benchmarks import baseline
from benchmarks.common import print_table, ratio, record, side_by_side
from benchmarks.photos import photos
from stages.common.artifacts import VIEWS, BoxesParameters, ViewsParameters
from stages.common.columns import embedding_rows
from stages.common.encoders import Encoder, load_encoder
from stages.common.images import content_digest, open_rgb
from stages.common.params import Crop, Model, Params, load_params
from stages.common.tables import make_meta, read_table
from stages.crop.boxes import draw_candidates, surviving
from stages.embed.encode import embed_images, forward_size
from stages.embed.reuse import Work, assemble
from stages.embed.shards import ImageViews, Shard, write_shard
from stages.embed.views import ViewMaker

IMAGES, REPEATS, THRESHOLD = 8, 3, 0.8
ENCODED_ALONE = 256
"""Views of a measurement of the encoder alone."""


def ours(files: Sequence[tuple[Path, str]], encoder: Encoder, crop: Crop, seed: int, output: Path) -> int:
    """Draw, filter, embed and write a shard, as `crop` and `embed` do; returns the number of views."""
    images = []
    for path, image_id in files:
        data = path.read_bytes()
        boxes = draw_candidates(*open_rgb(path).size, crop, seed, image_id)
        kept = np.flatnonzero(surviving(boxes, [THRESHOLD], crop.max_views)[:, 0]).astype(np.int32)
        images.append(ImageViews(path.name, content_digest(data), "", kept, boxes[kept]))
    made_by = ViewsParameters(crop=BoxesParameters(seed=seed, **crop.model_dump()))
    shard = Shard(output, images, make_meta(VIEWS, "photos", made_by, encoder.meta))
    work = Work(shard, [None] * len(images), images)
    write_shard(shard, list(assemble(work, embed_images(images, str(files[0][0].parent), encoder, "auto"))))
    return sum(1 + len(image.candidates) for image in images)


def alone(encoder: Encoder) -> dict[str, Callable[[], object]]:
    """Encoding ENCODED_ALONE views that are in memory, by placement of threads."""
    size, cores = encoder.image_size, torch.get_num_threads()
    views = torch.randint(0, 256, (ENCODED_ALONE, size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)

    def together(batch: int) -> object:
        return [encoder.encode_images(part) for part in views.split(batch)]

    def apart(batch: int) -> object:
        with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(encoder.encode_images, views.split(batch)))

    size = forward_size("auto", encoder)
    return {
        f"all cores on batches of {size}": lambda: together(size),
        f"all cores on batches of {4 * size}": lambda: together(4 * size),
        f"a core a batch of {size}": lambda: apart(size),
    }


def cosines(
    shard: Path, pickled: Path, files: Sequence[tuple[Path, str]], exact: Encoder, crop: Crop, seed: int
) -> dict[str, float]:
    """The least cosine of a written view to its float32 embedding: of the same pixels, and of the baseline's."""
    table, _ = read_table(shard, VIEWS)
    written = embedding_rows(table["embedding"]).astype(np.float64)
    written /= np.linalg.norm(written, axis=1, keepdims=True)
    make_views = ViewMaker(exact.meta.preprocess, exact.image_size)
    features, start = pickle.loads(pickled.read_bytes()), 0
    same, theirs = [], []
    for path, image_id in files:
        boxes = draw_candidates(*open_rgb(path).size, crop, seed, image_id)
        boxes = boxes[surviving(boxes, [THRESHOLD], crop.max_views)[:, 0]]
        rows = written[start : start + 1 + len(boxes)]
        start += len(rows)
        same.append((exact.encode_images(make_views(open_rgb(path), boxes)).double().numpy() * rows).sum(axis=1).min())
        theirs.append((features[image_id][: len(rows)].astype(np.float64) * rows).sum(axis=1).min())
    return {"min_cosine_same_pixels": float(min(same)), "min_cosine": float(min(theirs))}


def vit_params(precision: str) -> Params:
    models = {"vit-b-32": Model(name="ViT-B-32")}
    return load_params().model_copy(update={"models": models, "precision": precision, "device": "cpu"})


def main() -> None:
    params = vit_params("auto")
    crop = params.crop.model_copy(update={"candidates": 300, "max_views": 60})
    encoder, exact = load_encoder("vit-b-32", params), load_encoder("vit-b-32", vit_params("float32"))
    config = open_clip.get_model_preprocess_cfg(exact.model)
    transform = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(**config), is_train=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths, what = photos(folder, IMAGES)
        files = [(path, path.name) for path in paths]
        shard, pickled = folder / "part-00000.parquet", folder / "features.pkl"
        works: dict[str, Callable[[], object]] = {
            "baseline": lambda: baseline.embed(
                files, exact.model.encode_image, transform, crop, params.seed, THRESHOLD, pickled
            ),
            "ours": lambda: ours(files, encoder, crop, params.seed, shard),
            **alone(encoder),
        }
        views = ours(files, encoder, crop, params.seed, shard)  # warm up, and count
        times = side_by_side(works, REPEATS)
        cosine = cosines(shard, pickled, files, exact, crop, params.seed)
    counts = {name: views if name in ("baseline", "ours") else ENCODED_ALONE for name in works}
    rate = {name: counts[name] / statistics.median(taken) for name, taken in times.items()}
    best = max((name for name in works if counts[name] == ENCODED_ALONE), key=lambda name: rate[name])
    pairs = zip(times["ours"], times[best], strict=True)
    share = statistics.median((views / mine) / (ENCODED_ALONE / theirs) for mine, theirs in pairs)
    print_table(
        f"Images to disk, ViT-B/32 on {os.cpu_count()} cores: {what}, {views} views, {REPEATS} runs; "
        f"ours in {encoder.meta.precision}",
        ["", "median seconds", "views a second"],
        [[name, f"{statistics.median(taken):.2f}", f"{rate[name]:.1f}"] for name, taken in times.items()],
    )
    print("\n" + ", ".join(f"{name} {value:.6f}" for name, value in cosine.items()))
    headline = {
        "end_to_end_ratio": round(ratio(times["baseline"], times["ours"]), 2),
        "of_encoder_alone": round(share, 3),
        "min_cosine": round(cosine["min_cosine"], 6),
    }
    details = {"photos": what, "views": views, "runs": REPEATS, "precision": encoder.meta.precision}
    details |= {"views_a_second": {name: round(value, 1) for name, value in rate.items()}, "alone": best, **cosine}
    record("end_to_end", headline, details)


if __name__ == "__main__":
    main()
