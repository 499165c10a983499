"""What the frozen encoder reaches with labels: classifiers that learn from a train split, on the images of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stages.common import paths
from stages.common.cli import Job
from stages.common.crops import open_boxes, read_images
from stages.common.device import pick_device
from stages.common.errors import UserError
from stages.common.labels import ClassTable, Labelled, read_classes, read_labels
from stages.common.methods import WHOLE
from stages.common.supervised import FEATURES, Features, Supervised, inputs_of, write_supervised
from stages.common.tables import require_same_model
from stages.common.views import Shards, open_shards
from stages.supervised.features import read_features
from stages.supervised.learn import Learner


@dataclass(frozen=True)
class Split:
    """The embedded images of an entry of `datasets`."""

    images: Labelled
    shards: Shards
    crop: dict[str, object]
    """The parameters that decide the first `max_views` candidates."""

    def features(self, pools: Sequence[str]) -> dict[str, np.ndarray]:
        max_views = self.shards.opened[0].meta.parameters.crop.max_views
        return read_features(self.shards, max_views, pools)


def supervised_dataset(job: Job, train: str) -> list[str]:
    """Train on `train`, classify the images of the job's data set, write `supervised.json`; returns the lines to print.

    Train images that the data set has as well, byte by byte, are left out.

    Raises:
        UserError: the entries differ in classes or encoder, images without labels, no image left to train on, or
            artifacts that do not belong together.
    """
    dataset, model, seed = job.dataset, job.model, job.params.seed
    if train == dataset:
        raise UserError(f"--train '{train}' is the data set itself; name the entry that is its train split")
    inputs = inputs_of(dataset, train)
    classes, test, source = open_pair(dataset, train, model)
    kept = ~np.isin(np.array(source.images.contents), np.array(test.images.contents))
    notes = notes_on(source.images, kept, classes, dataset, train)
    differing = [key for key, value in test.crop.items() if source.crop[key] != value]
    if differing:
        notes.append(f"No rows of crops, because {train} has other values of crop.{', crop.'.join(differing)}.")
    kinds = [kind for kind in FEATURES if kind.views == WHOLE or not differing]
    methods, strength = reach(test, source, kept, kinds, len(classes.names), pick_device(job.params.device), seed)
    if not strength:
        notes.append(f"No linear probe, because no class has two images in {train}: C is chosen on one of them.")
    found = Supervised(
        dataset=dataset,
        train=train,
        encoder=test.shards.model,
        made_from=inputs,
        seed=seed,
        classes=len(classes.names),
        train_images=int(kept.sum()),
        strength=strength,
        notes=notes,
        methods=methods,
    )
    write_supervised(model, found)
    figures = ", ".join(f"{name} {own['top1']:.2f}" for name, own in methods.items())
    return [*notes, f"supervised {dataset} {model}: top-1 with the labels of {train}: {figures}"]


def reach(
    test: Split,
    source: Split,
    kept: np.ndarray,
    kinds: Sequence[Features],
    classes: int,
    device: torch.device,
    seed: int,
) -> tuple[dict[str, dict[str, int | float]], dict[str, float]]:
    """The figures of each classifier, and C of each linear probe, by row.

    Args:
        kept: [N] bool, the images of `source` to learn from.
    """
    methods, strength = {}, {}
    tested, learnt = (split.features([kind.views for kind in kinds]) for split in (test, source))
    labels, truth = (split.images.labels.astype(np.int64) for split in (source, test))
    for kind in kinds:
        rows = learnt.pop(kind.views)
        rows = rows if kept.all() else rows[kept]
        learner = Learner(rows, labels[kept], tested.pop(kind.views), truth, classes, device)
        methods[f"knn{kind.suffix}"] = learner.knn()
        probe = learner.linear(seed)
        if probe is not None:
            methods[f"linear{kind.suffix}"], strength[f"linear{kind.suffix}"] = probe
    return methods, strength


def open_pair(dataset: str, train: str, model: str) -> tuple[ClassTable, Split, Split]:
    """The classes of a data set, its split, and its train split.

    Raises:
        UserError: they differ in classes or encoder; as `read_split`.
    """
    classes, others = read_classes(dataset), read_classes(train)
    require_same_classes(classes, others)
    test, source = read_split(dataset, model, classes), read_split(train, model, others)
    mine, theirs = ((split.shards.opened[0].path, split.shards.model) for split in (test, source))
    require_same_model(mine, theirs, "run `dvc repro embed`")
    return classes, test, source


def require_same_classes(classes: ClassTable, others: ClassTable) -> None:
    """Refuse a train split of other classes, or of these in another order.

    Raises:
        UserError: names both files and what differs.
    """
    if classes.names == others.names:
        return
    how = f"{len(classes.names)} and {len(others.names)} classes"
    for label, (mine, theirs) in enumerate(zip(classes.names, others.names, strict=False)):
        if mine != theirs:
            how = f"label {label} is '{mine}' in the first and '{theirs}' in the second"
            break
    raise UserError(
        f"{classes.path} and {others.path} have different classes ({how}); a train split needs the same classes in the "
        "same order: give both entries the same reader and `names`"
    )


def read_split(dataset: str, model: str, classes: ClassTable) -> Split:
    """The images of an entry, with labels, and its shards, checked.

    Raises:
        UserError: images without labels; as `open_shards`.
    """
    images = read_labels(dataset, classes, optional=True)
    if not images.known:
        raise UserError(
            f"{paths.images(dataset)}: the images have no labels, which the stage `supervised` needs; take '{dataset}' "
            "out of `supervised` in params.yaml"
        )
    boxes = open_boxes(dataset)
    # The thresholds choose among the candidates and change none.
    crop = boxes.meta.parameters.model_dump(exclude={"iou_thresholds"})
    return Split(images, open_shards(paths.views(dataset, model), read_images(dataset), boxes, None), crop)


def notes_on(source: Labelled, kept: np.ndarray, classes: ClassTable, dataset: str, train: str) -> list[str]:
    """What a reader must know of the train images: those left out, and classes without any.

    Args:
        kept: [N] bool, the train images that the data set does not have.

    Raises:
        UserError: the data set has all of them.
    """
    if not kept.any():
        raise UserError(
            f"every image of '{train}' is in '{dataset}' too, so nothing is left to train on; give the entry "
            f"datasets.{train} another split or root"
        )
    notes = []
    twice = int((~kept).sum())
    if twice:
        notes.append(f"{twice} of {len(kept)} images of {train} are left out, because {dataset} has the same.")
    without = np.flatnonzero(np.bincount(source.labels[kept], minlength=len(classes.names)) == 0)
    if len(without):
        named = f"such as '{classes.names[without[0]]}'"
        notes.append(f"{len(without)} of {len(classes.names)} classes have no image in {train}, {named}.")
    return notes
