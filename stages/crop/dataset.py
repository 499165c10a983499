"""The candidate boxes of a data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from stages.common import paths
from stages.common.artifacts import BOXES, IMAGES, BoxesParameters
from stages.common.params import Crop
from stages.common.tables import make_meta, read_table, writing
from stages.crop.boxes import draw_candidates, surviving

IMAGES_PER_ROW_GROUP = 256


def boxes_table(images: Sequence[dict], crop: Crop, seed: int) -> tuple[pa.Table, np.ndarray]:
    """Candidate boxes of some images, image after image.

    Returns:
        The rows, and [T] int64: how many crops survive under each threshold, summed over the images.
    """
    boxes, kept = [], []
    for image in images:
        drawn = draw_candidates(image["width"], image["height"], crop, seed, image["image_id"])
        boxes.append(drawn)
        kept.append(surviving(drawn, crop.iou_thresholds, crop.max_views))
    corners, survives = np.concatenate(boxes), np.concatenate(kept)
    thresholds = np.array(crop.iou_thresholds, dtype=np.float32)
    offsets = np.concatenate([[0], survives.sum(axis=1).cumsum()]).astype(np.int32)
    values = np.broadcast_to(thresholds, survives.shape)[survives]
    columns = [
        pa.array([image["image_id"] for image in images]).take(np.repeat(np.arange(len(images)), crop.candidates)),
        pa.array(np.tile(np.arange(crop.candidates, dtype=np.int32), len(images))),
        *(pa.array(corners[:, side]) for side in range(4)),
        pa.ListArray.from_arrays(pa.array(offsets), pa.array(values)),
    ]
    return pa.table(columns, schema=BOXES.columns), survives.sum(axis=0)


def crop_dataset(dataset: str, crop: Crop, seed: int) -> str:
    """Draw and filter the candidate boxes of every image and write `boxes.parquet`; returns the line to print.

    Raises:
        UserError: `images.parquet` is missing or not whole.
    """
    table, _ = read_table(paths.images(dataset), IMAGES, ["image_id", "width", "height"], dataset)
    images = table.to_pylist()
    meta = make_meta(BOXES, dataset, BoxesParameters(seed=seed, **crop.model_dump()))
    survivors = np.zeros(len(crop.iou_thresholds), dtype=np.int64)
    with writing(paths.boxes(dataset), BOXES.columns, meta) as writer:
        for start in tqdm(range(0, len(images), IMAGES_PER_ROW_GROUP), desc="boxes", unit="group", disable=None):
            rows, counts = boxes_table(images[start : start + IMAGES_PER_ROW_GROUP], crop, seed)
            writer.write_table(rows)
            survivors += counts
    per_image = ", ".join(
        f"{count / len(images):.1f} at IoU {threshold:g}"
        for threshold, count in zip(crop.iou_thresholds, survivors, strict=True)
    )
    return f"crop {dataset}: of {crop.candidates} candidates an image keeps {per_image}"
