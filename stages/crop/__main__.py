"""crop: `images.parquet` -> `data/<dataset>/boxes.parquet`, one row a candidate crop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from stages.common import paths
from stages.common.cli import parse_job
from stages.common.errors import run
from stages.common.params import Crop
from stages.common.settings import write_settings
from stages.common.tables import make_meta, read_table, writing
from stages.crop.boxes import draw_candidates, surviving

BOXES = pa.schema(
    {
        "image_id": pa.string(),
        "candidate": pa.int32(),
        "left": pa.int32(),
        "top": pa.int32(),
        "right": pa.int32(),
        "bottom": pa.int32(),
        "kept": pa.list_(pa.float32()),
    }
)
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
    return pa.table(columns, schema=BOXES), survives.sum(axis=0)


def main() -> None:
    job = parse_job("crop", __doc__, "dataset")
    crop, seed = job.params.crop, job.params.seed
    write_settings(job.params, job.dataset, "crop")
    table, _ = read_table(paths.images(job.dataset), "images", ["image_id", "width", "height"])
    images = table.to_pylist()
    meta = make_meta("boxes", job.dataset, parameters={"seed": seed, **crop.model_dump()})
    survivors = np.zeros(len(crop.iou_thresholds), dtype=np.int64)
    with writing(paths.boxes(job.dataset), BOXES, meta) as writer:
        for start in tqdm(range(0, len(images), IMAGES_PER_ROW_GROUP), desc="boxes", unit="group", disable=None):
            rows, counts = boxes_table(images[start : start + IMAGES_PER_ROW_GROUP], crop, seed)
            writer.write_table(rows)
            survivors += counts
    per_image = ", ".join(
        f"{count / len(images):.1f} at IoU {threshold:g}"
        for threshold, count in zip(crop.iou_thresholds, survivors, strict=True)
    )
    print(f"crop {job.dataset}: of {crop.candidates} candidates an image keeps {per_image}")


if __name__ == "__main__":
    run(main)
