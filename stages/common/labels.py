"""The classes of a data set, and the images' labels, checked to number these very classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.common import paths
from stages.common.artifacts import CLASSES, IMAGES, ClassesParameters, ImagesParameters, Metadata
from stages.common.digests import digest
from stages.common.errors import UserError
from stages.common.tables import read_table, require_same

UNKNOWN = -1
"""Stands for the label of an image that has none; null in tables."""


@dataclass(frozen=True)
class ClassTable:
    """`classes.parquet` of a data set."""

    path: Path
    table: pa.Table
    parameters: ClassesParameters
    names: list[str]
    """By label."""

    def require(self, path: Path, said: str, remedy: str = "run `dvc repro`") -> None:
        """Refuse an artifact of other classes, or of these in another order.

        Args:
            said: the digest of the classes in the artifact's metadata.

        Raises:
            UserError: names both files.
        """
        require_same("classes", (path, said), (self.path, names_digest(self.names)), remedy)


def names_digest(names: Sequence[str]) -> str:
    """Digest of class names, by label; images and texts keep it in their metadata."""
    return digest(list(names))


def read_classes(dataset: str, path: Path | None = None) -> ClassTable:
    """The classes of a data set.

    Args:
        path: of a table outside of the project; None: the project's.

    Raises:
        UserError: as `read_table`.
    """
    path = path or paths.classes(dataset)
    table, meta = read_table(path, CLASSES, dataset=dataset)
    return ClassTable(path, table, meta.parameters, table["name"].to_pylist())


@dataclass(frozen=True)
class Labelled:
    """The images of a data set, in order, each with its class."""

    image_ids: list[str]
    labels: np.ndarray
    """[N] int32; UNKNOWN for all of a data set without labels."""
    contents: list[str]
    """Digests of the files' bytes."""
    meta: Metadata[ImagesParameters]

    @property
    def known(self) -> bool:
        """Whether the images have labels."""
        return bool((self.labels != UNKNOWN).all())


def label_column(labels: np.ndarray) -> pa.Array:
    """[N] labels as a column, in which UNKNOWN is null."""
    return pa.array(labels, pa.int32(), mask=labels == UNKNOWN)


def read_labels(dataset: str, classes: ClassTable, path: Path | None = None, *, optional: bool = False) -> Labelled:
    """The images with their labels.

    Args:
        path: of a table outside of the project; None: the project's.
        optional: accept a data set in which no image has a label. Only FINER needs labels.

    Raises:
        UserError: labels of other classes, or an image without a label.
    """
    path = path or paths.images(dataset)
    table, meta = read_table(path, IMAGES, ["image_id", "label", "content"], dataset)
    classes.require(path, meta.parameters.classes)
    image_ids = table["image_id"].to_pylist()
    if table["label"].null_count == len(table):
        if not optional:
            raise UserError(
                f"{path}: the images have no labels, which FINER needs; take '{dataset}' out of finer.datasets in "
                "params.yaml"
            )
        unknown = np.full(len(table), UNKNOWN, np.int32)
        return Labelled(image_ids, unknown, table["content"].to_pylist(), meta)
    without = pc.index(pc.is_null(table["label"]), True).as_py()
    if without >= 0:
        raise UserError(
            f"{path}: the image '{image_ids[without]}' has no label; give every image of the data set a class"
        )
    labels: np.ndarray = table["label"].to_numpy()
    beyond = labels >= len(classes.names)
    if beyond.any():
        image_id, label = image_ids[int(np.argmax(beyond))], labels[np.argmax(beyond)]
        raise UserError(
            f"{path}: the label {label} of '{image_id}' is none of the {len(classes.names)} classes in {classes.path}; "
            "run `dvc repro`"
        )
    return Labelled(image_ids, labels, table["content"].to_pylist(), meta)
