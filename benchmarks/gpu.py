"""On one GPU: images to Parquet against the encoder alone, ViT-B/32 and ViT-L/14 with random weights.

End to end is the whole of `embed` but for loading the encoder: reading, decoding, resampling, encoding, writing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import print_table, record, seconds, side_by_side
from benchmarks.photos import photos
from benchmarks.project import DATASET, MODELS, change_params, make_project, run_stage
from stages.common import paths
from stages.common.cli import Job
from stages.common.encoders import Encoder, load_encoder
from stages.common.images import open_rgb
from stages.common.params import load_params
from stages.common.tables import open_parquet
from stages.embed.dataset import embed_dataset, embed_here
from stages.embed.encode import forward_size
from stages.embed.resample import resample_together
from stages.embed.views import resample, to_tensor

ENCODERS = {"vit-b-32": "ViT-B-32", "vit-l-14": "ViT-L-14"}
IMAGES = {"vit-b-32": 1500, "vit-l-14": 300}
TARGETS = {"vit-b-32": 0.85, "vit-l-14": 0.95}
REPEATS = 3
BATCHES = 40


def alone(encoder: Encoder) -> int:
    """Encode BATCHES batches that are on the GPU already; returns the number of views."""
    size = forward_size("auto", encoder)
    side = encoder.image_size
    batch = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8, device=encoder.device)
    for _ in range(BATCHES):
        encoder.encode_images(batch)
    torch.cuda.synchronize()
    return size * BATCHES


def end_to_end(job: Job, encoder: Encoder) -> int:
    """Embed the data set into no shards yet; returns the number of views."""
    folder = paths.views(job.dataset, job.model)
    for shard in folder.glob("*.parquet"):
        shard.unlink()
    embed_dataset(job, encoder.meta, embed_here(job, encoder))
    return sum(open_parquet(shard).metadata.num_rows for shard in folder.glob("*.parquet"))


def measure(key: str) -> dict[str, Any]:
    """Views a second of both, in turns, and whether a view's embedding depends on its neighbours."""
    job = Job(load_params(), DATASET, key, "", argparse.Namespace())
    encoder = load_encoder(key, job.params)
    views = {"alone": alone(encoder), "end to end": end_to_end(job, encoder)}  # warm up, and count
    times = side_by_side({"alone": lambda: alone(encoder), "end to end": lambda: end_to_end(job, encoder)}, REPEATS)
    rates = {name: views[name] / statistics.median(taken) for name, taken in times.items()}
    shares = [
        (views["end to end"] / whole) / (views["alone"] / single)
        for whole, single in zip(times["end to end"], times["alone"], strict=True)
    ]
    return {
        "alone": round(rates["alone"]),
        "end_to_end": round(rates["end to end"]),
        "of_encoder_alone": round(statistics.median(shares), 3),
        "views": views["end to end"],
        "precision": encoder.meta.precision,
        "rows_depend_on_neighbours": not rows_stand_alone(encoder),
        **precision(encoder),
    }


def random_views(encoder: Encoder, count: int) -> torch.Tensor:
    side = encoder.image_size
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, device=encoder.device)


def rows_stand_alone(encoder: Encoder) -> bool:
    """Whether a shuffled batch gives the same embeddings, bit for bit."""
    batch = random_views(encoder, forward_size("auto", encoder))
    order = torch.randperm(len(batch), device=batch.device)
    return bool(torch.equal(encoder.encode_images(batch)[order], encoder.encode_images(batch[order])))


def precision(encoder: Encoder) -> dict[str, float]:
    """The least cosine to float32, on noise."""
    entry = load_params().model_copy(update={"precision": "float32"})
    key = next(name for name, model in entry.models.items() if model.name == encoder.meta.name)
    exact, batch = load_encoder(key, entry), random_views(encoder, 64)
    cosine = (encoder.encode_images(batch) * exact.encode_images(batch)).sum(dim=1)
    return {"min_cosine": round(cosine.min().item(), 6)}


def resampling(files: Sequence[Path]) -> dict[str, float]:
    """Grey levels by which the GPU's crops differ from the CPU's, and crops a second on the GPU."""
    rng, size, most, total, spent, crops = np.random.default_rng(0), 224, 0, 0.0, 0.0, 0
    for path in files:
        pixels = to_tensor(open_rgb(path))
        height, width = pixels.shape[1:]
        side = rng.integers(1, min(width, height), 60, endpoint=True)
        left, top = rng.integers(0, width - side, endpoint=True), rng.integers(0, height - side, endpoint=True)
        boxes = np.stack([left, top, left + side, top + side], axis=1)
        there = pixels.cuda()
        found = resample_together(there, boxes, size, "bicubic")
        difference = (found.cpu().int() - resample(pixels, boxes, size, "bicubic").int()).abs()
        most, total, crops = max(most, int(difference.max())), total + difference.float().mean().item(), crops + 60
        torch.cuda.synchronize()

        def again(there: torch.Tensor = there, boxes: np.ndarray = boxes) -> None:
            resample_together(there, boxes, size, "bicubic")
            torch.cuda.synchronize()

        spent += seconds(again)
    return {"most_grey_levels": most, "mean_grey_levels": total / len(files), "crops_a_second": round(crops / spent)}


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("no GPU here; `make bench` measures on the CPU")
    with tempfile.TemporaryDirectory() as name:
        files, what = photos(Path(name) / "photos", max(IMAGES.values()))
        same = resampling(files[:40])
        results = {}
        for key, model in ENCODERS.items():
            folder = Path(name) / key
            MODELS[key] = {"name": model, "pretrained": None}
            make_project(folder, files[: IMAGES[key]], classes=10, sentences=1, model=key)
            change_params(folder, lambda raw: raw.update(device="cuda"))
            run_stage(folder, "ingest")
            run_stage(folder, "crop")
            here = Path.cwd()
            os.chdir(folder)
            results[key] = measure(key)
            os.chdir(here)
    print_table(
        f"Images to Parquet on {torch.cuda.get_device_name()}: {what}, {REPEATS} runs",
        ["encoder", "alone, views/s", "end to end, views/s", "share", "wanted", "least cosine", "rows alone"],
        [
            [
                ENCODERS[key],
                found["alone"],
                found["end_to_end"],
                found["of_encoder_alone"],
                TARGETS[key],
                found["min_cosine"],
                "no" if found["rows_depend_on_neighbours"] else "yes",
            ]
            for key, found in results.items()
        ],
    )
    print(f"\nresampling against the CPU's: {same}")
    headline = {f"gpu_of_encoder_alone_{key}": found["of_encoder_alone"] for key, found in results.items()}
    record("gpu", headline, {"photos": what, "runs": REPEATS, "resampling": same, **results})


if __name__ == "__main__":
    main()
