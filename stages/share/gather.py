"""The tables of a data set and model, in the project or in a shared folder: found, read to the end, and checked."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from stages.common import paths
from stages.common.artifacts import (
    BOXES,
    PREDICTIONS,
    SKIPPED,
    TEXTS,
    BoxesParameters,
    EncoderMeta,
    Metadata,
    TextsParameters,
)
from stages.common.crops import IMAGES_AT_ONCE, Images, read_crops, read_images
from stages.common.errors import UserError
from stages.common.labels import ClassTable, Labelled, read_classes, read_labels
from stages.common.locks import hold
from stages.common.predictions import ROWS_AT_ONCE, read_answers
from stages.common.tables import open_parquet, open_table, read_table, require_same_model
from stages.common.views import open_shards, shard_paths

REMEDY = "run `dvc repro`, which makes them fit"


@dataclass(frozen=True)
class Places:
    """Where the tables are."""

    images: Path
    classes: Path
    skipped: Path
    boxes: Path
    texts: Path
    views: Path
    """The folder of the shards."""
    predictions: Path

    @classmethod
    def of_project(cls, dataset: str, model: str) -> Places:
        return cls(
            paths.images(dataset),
            paths.classes(dataset),
            paths.skipped(dataset),
            paths.boxes(dataset),
            paths.texts(dataset, model),
            paths.views(dataset, model),
            paths.predictions(dataset, model),
        )

    @classmethod
    def of_folder(cls, folder: Path) -> Places:
        """A shared folder: the same names, side by side."""
        own = cls.of_project("", "")
        names = (own.images, own.classes, own.skipped, own.boxes, own.texts, own.views, own.predictions)
        return cls(*(folder / path.name for path in names))


@dataclass(frozen=True)
class Table:
    """A table that exists: one file, or the shards of views."""

    name: str
    files: Sequence[Path]
    rows: int
    schema: pa.Schema

    @property
    def in_folder(self) -> list[str]:
        """Where its files are in a shared folder, relative to it."""
        return [f"{self.name}/{path.name}" if self.name == "views" else path.name for path in self.files]

    @property
    def pattern(self) -> str:
        """`in_folder` in one pattern."""
        return "views/part-*.parquet" if self.name == "views" else self.in_folder[0]


@dataclass
class Gathered:
    """Everything that is there of a data set and model, checked to be sound and to belong together."""

    dataset: str
    classes: ClassTable
    labelled: Labelled
    images: Images
    tables: list[Table] = field(default_factory=list)
    boxes: Metadata[BoxesParameters] | None = None
    texts: Metadata[TextsParameters] | None = None
    views: EncoderMeta | None = None
    predictions: EncoderMeta | None = None

    @property
    def encoder(self) -> EncoderMeta:
        """The encoder of views, texts and predictions. That of texts is always in float32."""
        found = self.views or self.predictions or (self.texts.encoder() if self.texts else None)
        assert found is not None
        return found


def gather(dataset: str, places: Places) -> Gathered:
    """Read the tables of a data set and model to the end.

    Raises:
        UserError: no images or classes, nothing that a model made, or a table that is damaged or does not belong to
            the others.
    """
    classes = read_classes(dataset, places.classes)
    labelled = read_labels(dataset, classes, places.images, optional=True)
    found = Gathered(dataset, classes, labelled, read_images(dataset, places.images))
    _add(found, "classes", places.classes)
    _add(found, "images", places.images)
    if places.skipped.exists():
        read_table(places.skipped, SKIPPED, dataset=dataset)
        _add(found, "skipped", places.skipped)
    shards = shard_paths(places.views)
    if not (shards or places.texts.exists() or places.predictions.exists()):
        raise UserError(
            f"nothing to share of {dataset}: no {places.texts}, {places.views} or {places.predictions}; make them with "
            "`dvc repro`, or fetch them with `dvc pull`"
        )
    if places.texts.exists():
        _add_texts(found, places.texts)
    if shards or places.boxes.exists():
        _add_boxes(found, places)
    if places.predictions.exists():
        _add_predictions(found, places.predictions)
    return found


def _add(found: Gathered, name: str, *files: Path) -> None:
    opened = [open_parquet(path) for path in files]
    rows = sum(file.metadata.num_rows for file in opened)
    found.tables.append(Table(name, files, rows, opened[0].schema_arrow))


def _add_texts(found: Gathered, path: Path) -> None:
    _, meta = read_table(path, TEXTS, dataset=found.dataset)
    found.classes.require(path, meta.parameters.classes)
    found.texts = meta
    _add(found, "texts", path)


def _add_boxes(found: Gathered, places: Places) -> None:
    """The boxes, and the views if there are any."""
    boxes = open_table(places.boxes, BOXES, found.dataset)
    found.boxes = boxes.meta
    shards = shard_paths(places.views)
    if shards:
        texts = (places.texts, found.texts) if found.texts else None
        views = open_shards(places.views, found.images, boxes, texts)  # reads the boxes too
        deque(views.read(), maxlen=0)
        found.views = views.model
    else:
        deque(read_crops(boxes, found.images, IMAGES_AT_ONCE), maxlen=0)
    _add(found, "boxes", places.boxes)
    if shards:
        _add(found, "views", *shards)


def _add_predictions(found: Gathered, path: Path) -> None:
    opened = open_table(path, PREDICTIONS, found.dataset)
    for table in found.tables:
        if table.name in ("texts", "views"):
            other = found.views if table.name == "views" else found.texts.encoder() if found.texts else None
            if other:
                require_same_model((path, opened.meta.encoder()), (table.files[0], other), REMEDY)
    deque(read_answers(opened, found.labelled, len(found.classes.names)), maxlen=0)
    deque(opened.batches(ROWS_AT_ONCE), maxlen=0)  # the other columns
    found.predictions = opened.meta.encoder()
    _add(found, "predictions", path)


def hold_stages(dataset: str, model: str) -> None:
    """Lock every stage that writes these tables until the end of the command.

    Raises:
        UserError: one of them is under way.
    """
    hold("share", dataset, model)
    for stage in ("ingest", "crop"):
        hold(stage, dataset)
    for stage in ("refine", "embed", "score"):
        hold(stage, dataset, model)
