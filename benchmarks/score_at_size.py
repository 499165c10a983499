"""Scoring a large data set: `python -m benchmarks.score_at_size [--images 50000] [--keep FOLDER]`.

Makes a project of random embeddings (50,000 images x (100 views + the whole image) x 512 dimensions, about 5 GiB) in
a temporary folder, and runs `python -m stages.score` on it in a process of its own, in turns with one that only reads
the same shards. Every method is scored, with the runs and views a run of params.yaml. Then again on a quarter of it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import yaml

from benchmarks.common import print_table, record, run_measured
from stages.common import paths
from stages.common.artifacts import (
    BOXES,
    CLASSES,
    IMAGES,
    TEXTS,
    UNTRAINED,
    VIEWS,
    BoxesParameters,
    ClassesParameters,
    EncoderMeta,
    ImagesParameters,
    TextsParameters,
    ViewsParameters,
)
from stages.common.columns import WHOLE
from stages.common.crops import open_boxes, read_images
from stages.common.labels import names_digest
from stages.common.params import LABEL, PARAMS_FILE, TEMPLATE, WAFFLE, Params, load_params
from stages.common.tables import make_meta, read_table, write_table, writing
from stages.common.views import Rows
from stages.crop.dataset import boxes_table
from stages.embed.shards import plan_shards, write_shard
from stages.refine.dataset import Text, texts_table

ROOT = Path(__file__).resolve().parent.parent
DATASET, MODEL = "at-size", "random"
COUNT, CROPS, DIMENSIONS = 100, 100, 512
TEXTS_A_CLASS = {TEMPLATE: 7, "cupl": 30, "attrvr_des": 30, "attrvr_dist": 30, "clip-d": 10, WAFFLE: 30}
CLASS_NAMES = [f"class {label}" for label in range(COUNT)]
WIDTH, HEIGHT = 500, 375
REPEATS = 3
MODEL_META = EncoderMeta(
    weights="0" * 16,
    architecture={},
    activation="gelu",
    image_size=224,
    preprocess={"interpolation": "bicubic", "mean": [0.5] * 3, "resize_mode": "shortest", "std": [0.25] * 3},
    embedding_dim=DIMENSIONS,
    precision="float32",
    name="random",
    pretrained=UNTRAINED,
)
READ = """
import sys
from pathlib import Path
import pyarrow.parquet as pq
from stages.common.columns import embedding_rows
for path in sorted(Path(sys.argv[1]).glob("part-*.parquet")):
    embedding_rows(pq.ParquetFile(path, memory_map=True).read()["embedding"])
"""
"""Plain reading: pyarrow decodes every column of every shard, as it does for `stages.score`; nothing is checked."""


@contextmanager
def folder_for(images: int, keep: Path | None) -> Iterator[Path]:
    """A folder with a project of that many images, removed at the end; under `keep`, made once and left there."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="score-at-size-") as name:
            write_data(Path(name), write_params(Path(name)), images)
            yield Path(name)
        return
    folder = keep.resolve() / str(images)
    params = write_params(folder)
    if not (folder / "done").exists():
        write_data(folder, params, images)
        (folder / "done").touch()
    yield folder


def write_params(folder: Path) -> Params:
    """The project's own parameters with one data set, one model and four sources."""
    raw = yaml.safe_load((ROOT / PARAMS_FILE).read_text(encoding="utf-8"))
    raw.update(
        datasets={DATASET: {"reader": "folder", "root": "images"}},
        models={MODEL: {"name": "ViT-B-32", "pretrained": None}},
        sources={"cupl": "sentences", "attrvr_des": "sentences", "attrvr_dist": "sentences", "clip-d": "descriptors"},
    )
    raw["crop"]["max_views"] = CROPS
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PARAMS_FILE).write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return load_params(folder / PARAMS_FILE)


def write_data(folder: Path, params: Params, images: int) -> None:
    """Everything that `score` reads, written by the functions that write it in the pipeline."""
    (folder / "stages").symlink_to(ROOT / "stages")
    write_images_and_classes(folder, images)
    write_boxes(folder, params)
    write_texts(folder, params)
    write_shards(folder, params)


def write_images_and_classes(folder: Path, images: int) -> None:
    ids = [f"class_{index * COUNT // images:03d}/{index:06d}.jpg" for index in range(images)]
    table = pa.table(
        {
            "image_id": ids,
            "label": pa.array([index * COUNT // images for index in range(images)], pa.int32()),
            "width": pa.array([WIDTH] * images, pa.int32()),
            "height": pa.array([HEIGHT] * images, pa.int32()),
            "content": [f"{index:016x}" for index in range(images)],
        }
    )
    numbered = ImagesParameters(classes=names_digest(CLASS_NAMES))
    write_table(folder / paths.images(DATASET), table, make_meta(IMAGES, DATASET, numbered))
    nothing = [None] * COUNT
    classes = pa.table([range(COUNT), CLASS_NAMES, nothing, nothing, nothing], schema=CLASSES.columns)
    write_table(folder / paths.classes(DATASET), classes, make_meta(CLASSES, DATASET, ClassesParameters()))


def boxes_parameters(params: Params) -> BoxesParameters:
    return BoxesParameters(seed=params.seed, **params.crop.model_dump())


def write_boxes(folder: Path, params: Params) -> None:
    """Boxes of 256 images, repeated; only the first 100 candidates survive, so that an image has 100 views."""
    images, _ = read_table(folder / paths.images(DATASET), IMAGES, ["image_id"])
    ids = images["image_id"].to_pylist()
    group = [{"image_id": image_id, "width": WIDTH, "height": HEIGHT} for image_id in ids[:256]]
    drawn, _ = boxes_table(group, params.crop, params.seed)
    beyond = drawn["candidate"].to_numpy() >= CROPS
    kept = pa.array(
        [[] if gone else own for gone, own in zip(beyond, drawn["kept"].to_pylist(), strict=True)],
        BOXES.columns.field("kept").type,
    )
    drawn = drawn.set_column(BOXES.columns.get_field_index("kept"), BOXES.columns.field("kept"), kept)
    meta = make_meta(BOXES, DATASET, boxes_parameters(params))
    with writing(folder / paths.boxes(DATASET), BOXES.columns, meta) as writer:
        for start in range(0, len(ids), len(group)):
            own = ids[start : start + len(group)]
            rows = drawn.slice(0, len(own) * params.crop.candidates)
            names = pa.array(own).take(np.repeat(np.arange(len(own)), params.crop.candidates))
            writer.write_table(rows.set_column(0, BOXES.columns.field("image_id"), names))


def write_texts(folder: Path, params: Params) -> None:
    """Random texts of every source, so that all methods are scored; refined as in the pipeline."""
    texts = [Text(label, LABEL, f"label {label}") for label in range(COUNT)]
    for source, count in TEXTS_A_CLASS.items():
        texts += [Text(label, source, f"{source} {label} {i}") for label in range(COUNT) for i in range(count)]
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((COUNT, DIMENSIONS))
    rows = centers[[text.label for text in texts]] + rng.standard_normal((len(texts), DIMENSIONS))
    embeddings = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    table = texts_table(
        texts, embeddings, np.full(len(texts), 9, np.int32), 77, params.refined_sources(), params.refine
    )
    refine = params.refine.model_dump(exclude={"sources", "batch_size"})
    made_by = TextsParameters(
        seed=params.seed,
        classes=names_digest(CLASS_NAMES),
        sources=params.sources,
        refined=params.refined_sources(),
        **refine,
    )
    meta = make_meta(TEXTS, DATASET, made_by, MODEL_META)
    write_table(folder / paths.texts(DATASET, MODEL), table, meta)


def write_shards(folder: Path, params: Params) -> None:
    """Random views around a random direction for each image, 64 images a shard."""
    with chdir(folder):
        images, boxes = read_images(DATASET), open_boxes(DATASET)
    meta = make_meta(VIEWS, DATASET, ViewsParameters(crop=boxes_parameters(params)), MODEL_META)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # each operation is small
    target = folder / paths.views(DATASET, MODEL)
    for shard in plan_shards(boxes, images, target, params.embed.images_per_shard, meta):
        rows = []
        for image in shard.images:
            assert len(image.candidates) == CROPS
            views = torch.randn(1, DIMENSIONS) + torch.randn(1 + CROPS, DIMENSIONS)
            views = torch.nn.functional.normalize(views, dim=-1)
            candidates = np.concatenate([[WHOLE], image.candidates]).astype(np.int32)
            rows.append(Rows(candidates, (views @ views[0]).numpy(), views.half().numpy()))
        write_shard(shard, rows)


def measure(folder: Path) -> dict[str, Any]:
    """Seconds and MiB of scoring and of plain reading, in turns; what a process costs before it reads is in both."""
    views = str(folder / paths.views(DATASET, MODEL))
    commands = {
        "read": [sys.executable, "-c", READ, views],
        "score": [sys.executable, "-m", "stages.score", "--dataset", DATASET, "--model", MODEL],
        "nothing": [sys.executable, "-c", "import stages.score.__main__"],
    }
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(REPEATS):
        for name, command in commands.items():
            runs[name].append(run_measured(command, folder))
    size = sum(path.stat().st_size for path in Path(views).iterdir())
    return {
        "shard_bytes": size,
        **{f"{name}_seconds": [round(seconds, 2) for seconds, _ in found] for name, found in runs.items()},
        "score_peak_mib": max(peak for _, peak in runs["score"]),
        "score_over_read": statistics.median(s / r for (s, _), (r, _) in zip(runs["score"], runs["read"], strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score_at_size", description=__doc__)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--keep", type=Path, help="make the projects here, use those that are there, leave them")
    arguments = parser.parse_args()
    found: dict[int, dict[str, Any]] = {}
    for images in (arguments.images // 4, arguments.images):
        with folder_for(images, arguments.keep) as folder:
            found[images] = measure(folder)
    print_table(
        f"Scoring {COUNT} classes, {1 + CROPS} x {DIMENSIONS} float16 an image, all methods and runs; medians of "
        f"{REPEATS} processes in turns, shards in the page cache for both",
        ["images", "shards (GiB)", "read (s)", "score (s)", "of it start-up (s)", "score / read", "score peak (MiB)"],
        [
            (
                f"{images:,}",
                f"{figures['shard_bytes'] / 2**30:.2f}",
                *(f"{statistics.median(figures[f'{name}_seconds']):.1f}" for name in ("read", "score", "nothing")),
                f"{figures['score_over_read']:.2f}",
                f"{figures['score_peak_mib']:.0f}",
            )
            for images, figures in found.items()
        ],
    )
    full = found[arguments.images]
    headline = {name: round(full[name], 2) for name in ("score_over_read", "score_peak_mib")}
    record("score_at_size", headline, {"classes": COUNT, "by_images": {str(n): f for n, f in found.items()}})


if __name__ == "__main__":
    main()
