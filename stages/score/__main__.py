"""score: `texts.parquet` and the shards of views -> `predictions.parquet` and `metrics.json`.

All methods and all runs in one pass over the shards, on the GPU when there is one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from tqdm import tqdm

from stages.common import paths
from stages.common.artifacts import UNTRAINED
from stages.common.cli import Job, parse_job
from stages.common.device import pick_device
from stages.common.errors import UserError, run
from stages.common.overlap import read_ahead, write_behind
from stages.common.settings import write_settings
from stages.common.tables import PREDICTIONS, Meta, make_meta, read_meta, read_table, write_json, writing
from stages.common.views import find_shards
from stages.score.methods import METHODS, available, class_vectors, first_equals
from stages.score.outcomes import Classes, Inputs, Ledger, prepare, score_batch
from stages.score.stream import kept_candidates, read_batches

IMAGES_PER_BATCH = 64


def main() -> None:
    job = parse_job("score", __doc__, "dataset", "model")
    write_settings(job.params, job.dataset, "score")
    # One core is for reading: threads of the arithmetic that wait for a core keep all the others waiting.
    torch.set_num_threads(min(torch.get_num_threads(), max(1, (os.cpu_count() or 1) - 1)))
    for line in score_dataset(job):
        print(line)


def score_dataset(job: Job) -> list[str]:
    """Score a whole data set; returns the lines to print.

    Raises:
        UserError: artifacts that do not belong together, or an IoU threshold that the boxes were not made with.
    """
    score, seed, crop = job.params.score, job.params.seed, box_parameters(job)
    device = pick_device(job.params.device)
    texts_path, boxes_path = paths.texts(job.dataset, job.model), paths.boxes(job.dataset)
    texts, texts_meta = read_table(texts_path, "texts")
    images_path = paths.images(job.dataset)
    images, _ = read_table(images_path, "images", ["image_id", "label"])
    image_ids, labels = images["image_id"].to_pylist(), images["label"].to_numpy()
    classes = read_table(paths.classes(job.dataset), "classes", ["label"])[0].num_rows
    shards = find_shards(job.dataset, job.model, (texts_path, texts_meta))
    views_model = shards.model
    kept = kept_candidates(boxes_path, score.iou_threshold, crop["candidates"])
    restricted = job.params.datasets[job.dataset].sources is not None
    methods, lines = available(texts, job.dataset if restricted else None)
    vectors = class_vectors(texts_path, texts, methods, classes, score)
    first = {method.name: first_equals(rows) for method, rows in zip(methods, vectors, strict=True)}
    lines += tie_lines(first, labels)
    compared = [
        Classes(method, torch.from_numpy(rows).to(device), _on_device(first[method.name], device))
        for method, rows in zip(methods, vectors, strict=True)
    ]
    meta = make_meta(
        "predictions",
        job.dataset,
        parameters={"seed": seed, "methods": [m.name for m in METHODS], **score.model_dump()},
        model=views_model,
    )

    def prepared() -> Iterator[tuple[slice, Inputs]]:
        for batch in read_batches(shards, kept, crop["max_views"], IMAGES_PER_BATCH):
            span = slice(batch.first, batch.first + len(batch.similarity))
            yield span, prepare(batch, image_ids[span], labels[span], score, seed, device)

    with (
        writing(paths.predictions(job.dataset, job.model), PREDICTIONS, meta) as writer,
        write_behind() as later,
        tqdm(total=len(image_ids), desc="score", unit="image", disable=None) as progress,
    ):
        ledger = Ledger(methods, score.runs, writer)
        for span, inputs in read_ahead(prepared()):
            later(ledger.add, image_ids[span], labels[span], score_batch(inputs, compared, score))
            progress.update(len(inputs.labels))
        later(ledger.flush)
    metrics: dict[str, object] = ledger.metrics()
    if views_model.pretrained == UNTRAINED:
        metrics["weights"] = UNTRAINED
    write_json(paths.metrics(job.dataset, job.model), metrics)
    return [*lines, f"score {job.dataset} {job.model}: {len(image_ids)} images, {len(methods)} methods"]


def _on_device(first: np.ndarray, device: torch.device) -> torch.Tensor | None:
    """None where each class has a vector of its own."""
    return None if (first == np.arange(len(first))).all() else torch.from_numpy(first).to(device)


def tie_lines(first: Mapping[str, np.ndarray], labels: np.ndarray) -> list[str]:
    """Which methods cannot tell some classes apart, because their texts are the same, and what that costs at least.

    Args:
        first: method -> the lowest label of the same texts, for each class: [C] int64.
        labels: [N] of the images.
    """
    names: dict[bytes, list[str]] = {}
    for method, lowest in first.items():
        names.setdefault(lowest.tobytes(), []).append(method)
    lines = []
    for methods in names.values():
        lowest = first[methods[0]]
        hidden = int((lowest != np.arange(len(lowest))).sum())
        if hidden:
            lines.append(
                f"{hidden} of {len(lowest)} classes have the same texts as a class of a lower label, which wins; "
                f"top-1 is at most {100 * (lowest[labels] == labels).mean():.2f} with {', '.join(methods)}"
            )
    return lines


def box_parameters(job: Job) -> Meta:
    """What `boxes.parquet` was made with, checked to hold the IoU threshold that is asked for.

    Raises:
        UserError: the boxes were made with other thresholds.
    """
    path = paths.boxes(job.dataset)
    crop: Meta = read_meta(path, "boxes")["parameters"]
    if job.params.score.iou_threshold not in crop["iou_thresholds"]:
        raise UserError(
            f"score.iou_threshold {job.params.score.iou_threshold:g} is not among those {path} was made with: "
            f"{crop['iou_thresholds']}; run `dvc repro crop`"
        )
    return crop


if __name__ == "__main__":
    run(main)
