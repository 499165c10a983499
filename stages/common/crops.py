"""The candidate boxes of a data set, `boxes.parquet`: the one reader, checked against the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.common import paths
from stages.common.artifacts import BOXES, IMAGES, BoxesParameters
from stages.common.columns import box_rows, kept_under
from stages.common.errors import UserError
from stages.common.tables import Opened, open_table, read_table, require_same

IMAGES_AT_ONCE = 256
"""Where all boxes are read only to verify or to find some."""


@dataclass(frozen=True)
class Images:
    """What boxes and views are checked against: the images of a data set, in order."""

    image_ids: list[str]
    contents: list[str]
    """Digests of the files' bytes."""
    sizes: np.ndarray
    """[B, 2] int32 width and height in pixels."""
    path: Path
    """Of their table."""

    def __len__(self) -> int:
        return len(self.image_ids)


def read_images(dataset: str, path: Path | None = None) -> Images:
    """The images of a data set.

    Args:
        path: of a table outside of the project; None: the project's.

    Raises:
        UserError: as `read_table`.
    """
    path = path or paths.images(dataset)
    table = read_table(path, IMAGES, ["image_id", "width", "height", "content"], dataset)[0]
    sizes = np.stack([table[name].to_numpy() for name in ("width", "height")], axis=1)
    return Images(table["image_id"].to_pylist(), table["content"].to_pylist(), sizes, path)


@dataclass(frozen=True)
class Crops:
    """The candidate crops of B images, C an image, and which survive under each of T IoU thresholds."""

    image_ids: list[str]
    contents: list[str]
    boxes: np.ndarray
    """[B, C, 4] int32 left, top, right, bottom in pixels."""
    kept: np.ndarray
    """[B, C, T] bool, by `parameters.iou_thresholds`."""
    parameters: BoxesParameters

    def wanted(self) -> np.ndarray:
        """Which candidates are embedded: [B, C] bool.

        The unfiltered pool (the first `max_views`), and each crop that survives under some threshold.
        """
        wanted = np.asarray(self.kept.any(axis=2))
        wanted[:, : self.parameters.max_views] = True
        return wanted

    def refined(self, threshold: float) -> np.ndarray:
        """Which candidates survive under one of the thresholds: [B, C] bool."""
        found: np.ndarray = self.kept[:, :, self.parameters.iou_thresholds.index(threshold)]
        return found


def open_boxes(dataset: str) -> Opened[BoxesParameters]:
    """`boxes.parquet` of a data set.

    Raises:
        UserError: as `open_table`.
    """
    return open_table(paths.boxes(dataset), BOXES, dataset)


def read_crops(boxes: Opened[BoxesParameters], images: Images, size: int) -> Iterator[Crops]:
    """The crops of all images, `size` images at a time. Only after the last are all of them verified.

    Raises:
        UserError: damaged boxes, or boxes that are not of these images.
    """
    parameters = boxes.meta.parameters
    table = images.path
    rows = (table, len(images) * parameters.candidates), (boxes.path, boxes.rows)
    require_same("rows", *rows, "run `dvc repro crop`")
    for number, piece in enumerate(boxes.batches(size * parameters.candidates)):
        part = slice(number * size, number * size + len(piece) // parameters.candidates)
        own = piece["image_id"].take(np.arange(0, len(piece), parameters.candidates)).to_pylist()
        corners = box_rows(piece).reshape(len(own), parameters.candidates, 4)
        _require_these(boxes.path, table, own, images.image_ids[part], corners, images.sizes[part])
        kept = kept_under(piece["kept"], parameters.iou_thresholds)
        assert kept is not None  # checked by the reader
        yield Crops(own, images.contents[part], corners, kept.reshape(*corners.shape[:2], -1), parameters)


def _require_these(
    path: Path, table: Path, own: Sequence[str], image_ids: Sequence[str], corners: np.ndarray, sizes: np.ndarray
) -> None:
    """Refuse boxes of other images, or beyond their images.

    Args:
        own: image_ids of the boxes; image_ids: those that the table of images has there.
        corners: [B, C, 4]; sizes: [B, 2] width and height.
    """
    for mine, listed, inside in zip(own, image_ids, corners[..., 2:].max(axis=1) <= sizes, strict=True):
        if mine != listed:
            raise UserError(f"{path} was not made from {table} (no boxes of '{listed}'); run `dvc repro crop`")
        if not inside.all():
            raise UserError(f"{path}: a box of '{mine}' is beyond the size that {table} has; run `dvc repro crop`")
