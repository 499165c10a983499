"""What it costs to change a prompt source, a `refine.*` or a `score.*` value, against the full run on 1,000 images.

`dvc repro` is run as a user would, ViT-B/32 on the CPU. Of the 1,000 images a part is embedded and timed; the full
run's time for embedding is that part's time an image (less start-up), times 1,000. The shards of all images are then
filled with random unit vectors, in the form that `embed` gives them, so that it finds them as they should be.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import print_table, record, run_measured
from benchmarks.photos import photos
from benchmarks.project import DATASET, ROOT, change_params, class_names, make_project, run_stage, write_sentences
from stages.common import paths
from stages.common.artifacts import VIEWS as VIEWS_TABLE
from stages.common.artifacts import ViewsParameters
from stages.common.columns import WHOLE
from stages.common.crops import open_boxes, read_images
from stages.common.encoders import load_encoder
from stages.common.params import load_params
from stages.common.tables import make_meta
from stages.embed.shards import Rows, plan_shards, write_shard

IMAGES, CLASSES, SENTENCES, MODEL = 1000, 25, 30, "vit-b-32"
EMBEDDED = 32
VIEWS = paths.views(DATASET, MODEL)


def repro(folder: Path) -> float:
    """Seconds of `dvc repro`."""
    return run_measured([str(Path(sys.executable).with_name("dvc")), "repro", "-q"], folder)[0]


def embedding_time(folder: Path) -> float:
    """Seconds an image of `embed`, without its start-up, from the first EMBEDDED images."""
    files = sorted((folder / "images").rglob("*.jpg"))[:EMBEDDED]
    part = folder.with_name("part")
    make_project(part, files, classes=CLASSES, sentences=1, model=MODEL)
    run_stage(part, "ingest")
    run_stage(part, "crop")
    whole, again = run_stage(part, "embed", MODEL)[0], run_stage(part, "embed", MODEL)[0]
    return (whole - again) / EMBEDDED


def fill_shards(folder: Path) -> None:
    """Shards of random unit vectors for every image, which `embed` takes for its own."""
    here = Path.cwd()
    os.chdir(folder)
    params = load_params()
    model = load_encoder(MODEL, params).meta
    images, boxes = read_images(DATASET), open_boxes(DATASET)
    meta = make_meta(VIEWS_TABLE, DATASET, ViewsParameters(crop=boxes.meta.parameters), model)
    rng = np.random.default_rng(0)
    for shard in plan_shards(boxes, images, VIEWS, params.embed.images_per_shard, meta):
        rows = []
        for image in shard.images:
            vectors = rng.normal(size=(1 + len(image.candidates), model.embedding_dim)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            candidates = np.concatenate([[WHOLE], image.candidates]).astype(np.int32)
            rows.append(Rows(candidates, vectors @ vectors[0], vectors.astype(np.float16)))
        write_shard(shard, rows)
    os.chdir(here)


def written(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted((folder / VIEWS).glob("*"))}


def changes(folder: Path) -> dict[str, Callable[[], None]]:
    """What a user may change, by name."""

    def edit(section: str, **values: Any) -> Callable[[], None]:
        return lambda: change_params(folder, lambda raw: raw[section].update(values))

    return {
        "other sentences of a source": lambda: write_sentences(folder, "cupl", class_names(CLASSES), SENTENCES, seed=1),
        "refine.top_k": edit("refine", top_k=10),
        "refine.cosine_threshold": edit("refine", cosine_threshold=0.9),
        "score.iou_threshold": edit("score", iou_threshold=0.6),
        "score.image_scale": edit("score", image_scale=3.0),
    }


def main() -> None:
    os.environ["DVC_NO_ANALYTICS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "project"
        files, what = photos(Path(name) / "photos", IMAGES)
        make_project(folder, files, classes=CLASSES, sentences=SENTENCES, model=MODEL)
        for entry in ("dvc.yaml", ".dvc/config", ".dvc/plots", ".dvcignore", ".gitignore", "descriptions/prompts"):
            source, target = ROOT / entry, folder / entry
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
        an_image = embedding_time(folder)
        run_stage(folder, "ingest")
        run_stage(folder, "crop")
        fill_shards(folder)
        shards = written(folder)
        others = repro(folder)
        full = others + IMAGES * an_image
        rows, shares = [], []
        for label, change in changes(folder).items():
            change()
            taken = repro(folder)
            if written(folder) != shards:
                sys.exit(f"{label}: embed wrote shards")
            shares.append(taken / full)
            rows.append([label, f"{taken:.1f}", f"{100 * taken / full:.2f} %", 0])
    print_table(
        f"{IMAGES} images ({what}), {CLASSES} classes x {SENTENCES} sentences, ViT-B/32. The full run takes "
        f"{full:.0f} s: {others:.0f} s measured, and {an_image:.2f} s an image for embedding",
        ["change", "dvc repro, s", "of the full run", "images embedded"],
        rows,
    )
    details = {"photos": what, "full_seconds": round(full, 1), "embed_seconds_an_image": round(an_image, 3)}
    record("reprompt", {"reprompt_share": round(max(shares), 4)}, {**details, "changes": [row[:3] for row in rows]})


if __name__ == "__main__":
    main()
