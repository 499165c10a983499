"""Scoring a data set: all methods and all runs in one pass over the shards, on a GPU if there is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing

import numpy as np
import torch
from tqdm import tqdm

from stages.common import methods, paths
from stages.common.artifacts import TEXTS
from stages.common.cli import Job
from stages.common.crops import open_boxes
from stages.common.device import pick_device
from stages.common.labels import read_classes, read_labels
from stages.common.names import told_apart
from stages.common.overlap import in_order, read_ahead, write_behind
from stages.common.tables import read_table
from stages.common.views import find_shards
from stages.score.methods import available, class_vectors, first_equals
from stages.score.outcomes import Inputs, Scored, on_device, prepare, score_batch
from stages.score.outputs import open_ledger
from stages.score.stream import read_batches

IMAGES_PER_BATCH = 64
MOST_AT_ONCE = 8
"""Batches that are scored side by side on a CPU. One thread reads for all of them, and each takes memory."""


def score_dataset(job: Job) -> list[str]:
    """Score a whole data set; returns the lines to print.

    Raises:
        UserError: artifacts that do not belong together, or an IoU threshold that the boxes were not made with.
    """
    score, seed = job.params.score, job.params.seed
    methods.require_method("score.csv_method", score.csv_method)
    boxes = open_boxes(job.dataset)
    boxes.meta.parameters.require(score.iou_threshold, boxes.path)
    device = pick_device(job.params.device)
    texts_path = paths.texts(job.dataset, job.model)
    texts, texts_meta = read_table(texts_path, TEXTS, dataset=job.dataset)
    class_table = read_classes(job.dataset)
    class_table.require(texts_path, texts_meta.parameters.classes)
    images, classes = read_labels(job.dataset, class_table, optional=True), len(class_table.names)
    image_ids, labels = images.image_ids, images.labels
    shards = find_shards(job.dataset, job.model, (texts_path, texts_meta), score.iou_threshold)
    restricted = job.params.datasets[job.dataset].sources is not None
    scored, lines = available(texts, job.dataset if restricted else None)
    vectors = class_vectors(texts_path, texts, scored, classes, score)
    first = {method.name: first_equals(rows) for method, rows in zip(scored, vectors, strict=True)}
    lines += tie_lines(first, labels if images.known else None)
    compared = on_device(scored, vectors, device)
    shown = methods.chosen(score.csv_method, [method.name for method in scored])
    if shown != score.csv_method:
        lines.append(f"predictions.csv is of {shown}, because {score.csv_method} (score.csv_method) was not scored")

    def prepared() -> Iterator[tuple[slice, Inputs]]:
        for batch in read_batches(shards, boxes.meta.parameters.max_views, IMAGES_PER_BATCH):
            span = slice(batch.first, batch.first + len(batch.similarity))
            yield span, prepare(batch, image_ids[span], labels[span], score, seed, device)

    def scored_batch(batch: tuple[slice, Inputs]) -> tuple[slice, Scored]:
        span, inputs = batch
        return span, score_batch(inputs, compared, score)

    threads = min(torch.get_num_threads(), MOST_AT_ONCE) if device.type == "cpu" else 1
    names = told_apart(class_table.names)
    with (
        open_ledger(
            job, scored, shards.model, names, shown, texts_meta.parameters.files, labelled=images.known
        ) as ledger,
        closing(read_ahead(prepared())) as batches,
        write_behind() as later,
        tqdm(total=len(image_ids), desc="score", unit="image", disable=None) as progress,
    ):
        for span, found in in_order(scored_batch, batches, threads):
            later(ledger.add, image_ids[span], labels[span], found)
            progress.update(span.stop - span.start)
        later(ledger.flush)
    return [*lines, f"score {job.dataset} {job.model}: {len(image_ids)} images, {len(scored)} methods"]


def tie_lines(first: Mapping[str, np.ndarray], labels: np.ndarray | None) -> list[str]:
    """Lines about methods that cannot distinguish some classes because their texts are the same, with the top-1 that
    remains
    possible.

    Args:
        first: method -> the lowest label of the same texts, for each class: [C] int64.
        labels: [N] of the images; None if they are not known.
    """
    tied: dict[bytes, list[str]] = {}
    for method, lowest in first.items():
        tied.setdefault(lowest.tobytes(), []).append(method)
    lines = []
    for own in tied.values():
        lowest = first[own[0]]
        hidden = int((lowest != np.arange(len(lowest))).sum())
        if hidden:
            most = "" if labels is None else f"top-1 is at most {100 * (lowest[labels] == labels).mean():.2f} "
            lines.append(
                f"{hidden} of {len(lowest)} classes have the same texts as a class of a lower label, which wins; "
                f"{most}with {', '.join(own)}"
            )
    return lines
