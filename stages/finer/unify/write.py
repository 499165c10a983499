"""finer.unify: images and classes, or published files -> `unified-<dataset>-{train,test}-combined.jsonl`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from stages.common import labels as common_labels
from stages.common.errors import UserError, warn
from stages.common.names import spelling
from stages.common.seeding import order_key
from stages.common.unpacked import image_root
from stages.finer.classes import ClassLabels, of_table
from stages.finer.cli import FinerJob
from stages.finer.params import Rank
from stages.finer.paths import TEST, TRAIN, unified
from stages.finer.unified import Sample, sample_metadata, write_unified
from stages.finer.unify.from_published import Row, published

_QUALIFIER = re.compile(r"\s*\([^)]*\)")

RANKS = get_args(Rank)
"""The coarse labels of the reader `inaturalist` below the superordinate one, in its order."""

CALLED = {"aircraft": "airplane"}
"""Reader -> superordinate label in the published files, if it differs from the reader's."""


def unify_dataset(job: FinerJob) -> str:
    """Write both unified files of a data set; the line to print.

    Raises:
        UserError: tables that are missing; classes without superordinate; a published file that does not fit them.
    """
    benchmark, reader = job.finer.datasets[job.dataset], job.params.datasets[job.dataset].reader
    class_table = common_labels.read_classes(job.dataset)
    labelled = common_labels.read_labels(job.dataset, class_table)
    classes = of_table(class_table.table)
    root = image_root(job.dataset, job.params.datasets[job.dataset].root, labelled.meta.parameters.unpacked)
    image_ids, labels, contents = labelled.image_ids, labelled.labels.tolist(), labelled.contents
    split: dict[str, list[Sample]] = {TRAIN: [], TEST: []}
    built = as_published(job.dataset, classes, reader, benchmark.rank)
    if benchmark.unified is not None:
        images = dict(zip(image_ids, map(Row, labels, contents), strict=True))
        split = published(job.dataset, benchmark, root, classes, images)
    else:
        check_classes(job.dataset, built)
        samples = build_samples(job.dataset, root, zip(image_ids, labels, contents, strict=True), built)
        splits = split_of(job.params.seed, job.dataset, image_ids, labels, benchmark.train_share)
        for sample, name in zip(samples, splits, strict=True):
            split[name].append(sample)
    for name, samples in split.items():
        write_unified(unified(job.dataset, name), samples)
    return (
        f"finer.unify {job.dataset}: {len(split[TRAIN])} images to train on, {len(split[TEST])} to be asked about, "
        f"{len(classes)} classes"
    )


def split_of(seed: int, dataset: str, image_ids: Sequence[str], labels: Sequence[int], share: float) -> list[str]:
    """TRAIN or TEST for each image.

    Each class's images are sorted by a hash of (seed, data set, image_id), and the first floor(share * n) are for
    training. So neither the order of the images nor the other classes matter.
    """
    places: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    splits = [TEST] * len(image_ids)
    for members in places.values():
        members.sort(key=lambda place: (order_key(seed, dataset, image_ids[place]), image_ids[place]))
        # 0.29 * 100 is a little less than 29.
        for place in members[: math.floor(share * len(members) + 1e-9)]:
            splits[place] = TRAIN
    return splits


def coarse_labels(found: ClassLabels) -> list[str]:
    """A class's coarse labels, without those that contain a fine label: an aircraft's family is a right answer."""
    fine = [f" {spelling(form)} " for form in found.fine]
    return [label for label in dict.fromkeys(found.coarse) if not any(name in f" {spelling(label)} " for name in fine)]


def fine_labels(found: ClassLabels) -> list[str]:
    """A class's fine labels, without those that only add a qualifier to another.

    Of "Common Eider (Adult male)" and "Common Eider", the published files have the latter.
    """
    forms = {spelling(form) for form in found.fine}
    longer = {form for form in found.fine if (bare := _QUALIFIER.sub("", form)) != form and spelling(bare) in forms}
    return [form for form in found.fine if form not in longer]


def as_published(dataset: str, classes: Sequence[ClassLabels], reader: str, rank: Rank | None) -> list[ClassLabels]:
    """Classes with the labels that the published files would have.

    Args:
        reader: of the data set.
        rank: of iNaturalist's coarse label; None is the family.

    Raises:
        UserError: a rank for another reader.
    """
    if reader == "inaturalist":
        place = RANKS.index(rank or "family")
        classes = [replace(found, coarse=found.coarse[place : place + 1]) for found in classes]
    elif rank is not None:
        raise UserError(f"finer.datasets.{dataset}.rank is for the reader inaturalist, not '{reader}'; take it out")
    if reader in CALLED:
        classes = [replace(found, superordinate=CALLED[reader]) for found in classes]
    return [replace(found, coarse=coarse_labels(found), fine=fine_labels(found)) for found in classes]


def check_classes(dataset: str, classes: Sequence[ClassLabels]) -> None:
    """Refuse classes without superordinate; warn about those without coarse labels.

    Raises:
        UserError: some class has no superordinate.
    """
    bare = [found.name for found in classes if not found.superordinate]
    if bare:
        raise UserError(
            f"datasets.{dataset}: {len(bare)} of {len(classes)} classes have no superordinate, such as '{bare[0]}'; "
            "give a manifest with a column `superordinate` (reader: manifest), or a file with `basic-level-lbl` as "
            f"finer.datasets.{dataset}.unified"
        )
    without = [found.name for found in classes if not found.coarse]
    if without:
        warn(
            f"datasets.{dataset}: {len(without)} of {len(classes)} classes have no coarse labels, such as "
            f"'{without[0]}'; coarse questions about them are left out"
        )


def build_samples(
    dataset: str, root: str, images: Iterable[tuple[str, int, str]], classes: Sequence[ClassLabels]
) -> list[Sample]:
    """One sample for each image; `idx` is the image's row in `images.parquet`.

    Args:
        root: folder that image_ids are relative to.
        classes: by label, as published.
        images: (image_id, label, digest of the file's bytes) in the table's order.
    """
    samples = []
    for idx, (image_id, label, content) in enumerate(images):
        found = classes[label]
        metadata = sample_metadata(dataset, image_id, label, found.name, content)
        path = (Path(root) / image_id).as_posix()
        samples.append(Sample(idx, found.superordinate or "", found.coarse, found.fine, path, metadata))
    return samples
