"""finer.unify: `images.parquet` and `classes.parquet` -> `unified-<dataset>-{train,test}-combined.jsonl`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from stages.common import paths
from stages.common.errors import UserError, run, warn
from stages.common.finer_params import Benchmark
from stages.common.images import content_digest
from stages.common.names import spelling
from stages.common.tables import read_table
from stages.finer.classes import ClassLabels, read_classes
from stages.finer.cli import parse_finer_job
from stages.finer.paths import TEST, TRAIN, unified
from stages.finer.unified import Labels, Sample, read_unified, write_unified


def rank(seed: int, *names: str) -> bytes:
    """A place in an order drawn by `seed`; depends on it and the names alone, and costs less than a generator."""
    return hashlib.blake2b("\0".join((str(seed), *names)).encode(), digest_size=8).digest()


def split_of(seed: int, dataset: str, image_ids: Sequence[str], labels: Sequence[int], share: float) -> list[str]:
    """TRAIN or TEST of each image.

    Of each class, the images in the order of a hash of (seed, data set, image_id), the first floor(share * n) are for
    training: whatever the order and the other classes.
    """
    places: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    splits = [TEST] * len(image_ids)
    for members in places.values():
        members.sort(key=lambda place: (rank(seed, dataset, image_ids[place]), image_ids[place]))
        # 0.29 * 100 is a little less than 29.
        for place in members[: math.floor(share * len(members) + 1e-9)]:
            splits[place] = TRAIN
    return splits


def coarse_labels(found: ClassLabels) -> list[str]:
    """A class's coarse labels, without those that are fine ones: an aircraft is rightly called by its family."""
    fine = {spelling(form) for form in found.fine}
    return [label for label in dict.fromkeys(found.coarse) if spelling(label) not in fine]


def check_classes(dataset: str, classes: Sequence[ClassLabels]) -> None:
    """Refuse classes without superordinate; warn of those without coarse labels.

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
    without = [found.name for found in classes if not coarse_labels(found)]
    if without:
        warn(
            f"datasets.{dataset}: {len(without)} of {len(classes)} classes have no coarse labels, such as "
            f"'{without[0]}'; coarse questions about them are left out"
        )


def build_samples(
    dataset: str, root: str, images: Iterable[tuple[str, int, str]], classes: Sequence[ClassLabels]
) -> list[Sample]:
    """One sample an image; `idx` is the image's row in `images.parquet`.

    Args:
        root: folder that image_ids are relative to.
        images: (image_id, label, digest of the file's bytes) in the table's order. By the digest the stages behind
            this one notice that an image was replaced.
    """
    samples = []
    coarse = [coarse_labels(found) for found in classes]
    for idx, (image_id, label, content) in enumerate(images):
        found = classes[label]
        metadata = {"dataset": dataset, "image_id": image_id, "label": label, "content": content}
        path = (Path(root) / image_id).as_posix()
        samples.append(Sample(idx, found.superordinate or "", coarse[label], found.fine, path, metadata))
    return samples


def read_published(
    dataset: str, path: Path, root: str, classes: Sequence[ClassLabels], contents: Mapping[str, str]
) -> list[Sample]:
    """A published unified file with our metadata; image paths are relative to the project's root or the data set's.

    Args:
        contents: image_id -> digest of the file's bytes, of the images that the data set's table has; others are read.

    Raises:
        UserError: as `read_unified`, or images that are not there.
    """
    names = [found.fine for found in classes]
    samples, labels, missing = [], Labels(names), []
    for sample in read_unified(path, names):
        tried = (Path(sample.img_path), Path(root) / sample.img_path)
        place = next((one for one in tried if one.is_file()), None)
        if place is None:
            missing.append(sample.img_path)
            continue
        image_id = place.relative_to(root).as_posix() if place.is_relative_to(root) else place.as_posix()
        (label,) = labels.find(sample.fine)
        content = contents.get(image_id) or content_digest(place.read_bytes())
        metadata = {**sample.metadata, "dataset": dataset, "image_id": image_id, "label": label, "content": content}
        samples.append(replace(sample, img_path=place.as_posix(), metadata=metadata))
    if missing:
        raise UserError(
            f"{path}: {len(missing)} images are not there, such as '{missing[0]}'; img_path is looked for in the "
            f"project's folder and in '{root}'"
        )
    without = sum(not sample.coarse for sample in samples)
    if without:
        warn(f"{path}: {without} of {len(samples)} images have no coarse labels; coarse questions of them are left out")
    return sorted(samples, key=lambda sample: sample.idx)


def published(
    dataset: str, benchmark: Benchmark, root: str, classes: Sequence[ClassLabels], contents: Mapping[str, str]
) -> dict[str, list[Sample]]:
    """Both splits from published files; without one to train on that split is empty, and a warning says so.

    Raises:
        UserError: as `read_published`, or an image that is in both files.
    """
    split: dict[str, list[Sample]] = {TRAIN: [], TEST: []}
    for name, file in ((TRAIN, benchmark.unified_train), (TEST, benchmark.unified)):
        if file is not None:
            split[name] = read_published(dataset, Path(file), root, classes, contents)
    if benchmark.unified_train is None:
        warn(
            f"finer.datasets.{dataset}: unified is given and unified_train is not, so no image is there to train on; "
            "the mixture and the probe go without the data set"
        )
    asked = {sample.img_path for sample in split[TEST]}
    twice = sorted({sample.img_path for sample in split[TRAIN]} & asked)
    if twice:
        raise UserError(
            f"{benchmark.unified_train}: {len(twice)} images are in {benchmark.unified} as well, such as "
            f"'{twice[0]}'; none may be both trained on and asked about"
        )
    return split


def main() -> None:
    job = parse_finer_job("finer.unify", __doc__, "dataset")
    benchmark = job.finer.datasets[job.dataset]
    classes = read_classes(job.dataset)
    table, meta = read_table(paths.images(job.dataset), "images", ["image_id", "label", "content"])
    root: str = meta["parameters"]["root"]
    split: dict[str, list[Sample]] = {TRAIN: [], TEST: []}
    if benchmark.unified is not None:
        contents = dict(zip(table["image_id"].to_pylist(), table["content"].to_pylist(), strict=True))
        split = published(job.dataset, benchmark, root, classes, contents)
    else:
        check_classes(job.dataset, classes)
        image_ids, labels = table["image_id"].to_pylist(), table["label"].to_pylist()
        rows = zip(image_ids, labels, table["content"].to_pylist(), strict=True)
        samples = build_samples(job.dataset, root, rows, classes)
        splits = split_of(job.params.seed, job.dataset, image_ids, labels, benchmark.train_share)
        for sample, name in zip(samples, splits, strict=True):
            split[name].append(sample)
    for name, samples in split.items():
        write_unified(unified(job.dataset, name), samples)
    print(
        f"finer.unify {job.dataset}: {len(split[TRAIN])} images to train on, {len(split[TEST])} to be asked about, "
        f"{len(classes)} classes"
    )


if __name__ == "__main__":
    run(main)
