"""`supervised.json`: what classifiers reach that learn from labelled images; its form, and the one reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

from stages.common import paths
from stages.common.artifacts import BOXES, IMAGES, Artifact, EncoderMeta, Record
from stages.common.digests import ALL as WHOLE_FILE
from stages.common.methods import ALL, WHOLE
from stages.common.record_files import read_record, write_record
from stages.common.tables import open_table

NEIGHBOURS = 20
"""Of the k-nearest-neighbour classifier, as in DINO (arXiv 2104.14294, section 3.2)."""


class Features(NamedTuple):
    """What a classifier learns from."""

    suffix: str
    """Of the name of its row."""
    views: str
    """WHOLE, or ALL: the mean of these crops."""
    shown: str
    """What a table calls it."""


FEATURES = (Features("", WHOLE, WHOLE), Features("-crops", ALL, f"mean of {ALL}"))
CLASSIFIERS = {"knn": f"{NEIGHBOURS} nearest images", "linear": "linear probe"}
"""Name -> what a table calls it."""


class Supervised(Record):
    """What was reached on the images of `dataset` after learning from those of `train`."""

    dataset: str
    train: str
    encoder: EncoderMeta
    made_from: dict[str, str]
    """Digests of the tables that decide images, labels and crops, as `inputs_of` gives them."""
    seed: int
    classes: int
    train_images: int
    """How many were learnt from."""
    strength: dict[str, float]
    """Of the linear probes: C, by row."""
    notes: list[str]
    """What a reader of the figures must know, in sentences."""
    methods: dict[str, dict[str, int | float]]
    """Row -> `Tally.metrics`."""


def inputs_of(dataset: str, train: str) -> dict[str, str]:
    """File -> its digest, of the images and boxes of both data sets, as far as the files are there.

    Raises:
        UserError: as `open_table`.
    """
    found = {}
    for key in (dataset, train):
        for path, kind in ((paths.images(key), IMAGES), (paths.boxes(key), BOXES)):
            if path.exists():
                found[path.as_posix()] = open_table(path, cast("Artifact[Any]", kind), key).digests[WHOLE_FILE]
    return found


def write_supervised(model: str, found: Supervised) -> None:
    """Write `supervised.json` of a model."""
    write_record(paths.supervised(found.dataset, model), found)


def read_supervised(path: Path) -> Supervised:
    """What is in a file.

    Raises:
        UserError: damaged, or of another kind.
    """
    return read_record(path, Supervised, "delete it, or run the stage `supervised` again")


def changed_since(found: Supervised) -> str:
    """The first file of `inputs_of` that differs from when the figures were made; empty if none does.

    Files that are not here count as unchanged, because they may be on a remote.
    """
    now = inputs_of(found.dataset, found.train)
    return next((name for name, own in now.items() if found.made_from.get(name) != own), "")
