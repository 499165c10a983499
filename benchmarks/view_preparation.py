"""From an image file to the pixels of its views on one core: decode, draw, filter, resample."""

from __future__ import annotations

import io
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import open_clip
import torch

from benchmarks.baseline import prepare
from benchmarks.common import print_table, ratio, record, side_by_side
from benchmarks.photos import photos
from stages.common.images import open_rgb
from stages.common.params import Crop, load_params
from stages.crop.boxes import draw_candidates, surviving
from stages.embed.views import ViewMaker

IMAGES, REPEATS, SIZE, THRESHOLD = 40, 3, 224, 0.8


def ours(path: Path, image_id: str, make_views: ViewMaker, crop: Crop, seed: int) -> torch.Tensor:
    """[1 + V, 3, S, S] uint8."""
    image = open_rgb(io.BytesIO(path.read_bytes()))
    boxes = draw_candidates(*image.size, crop, seed, image_id)
    return make_views(image, boxes[surviving(boxes, [THRESHOLD], crop.max_views)[:, 0]])


def main() -> None:
    params = load_params()
    crop = params.crop.model_copy(update={"candidates": 300, "max_views": 60})
    config = open_clip.transform.PreprocessCfg(size=SIZE)
    transform = open_clip.transform.image_transform_v2(config, is_train=False)
    preprocess = {key: getattr(config, key) for key in ("mean", "std", "interpolation", "resize_mode")}
    make_views = ViewMaker(preprocess, SIZE)
    torch.set_num_threads(1)
    rows, ratios = [], []
    with tempfile.TemporaryDirectory() as folder:
        files, what = photos(Path(folder), IMAGES)
        for path in files[:2]:  # warm up
            ours(path, path.name, make_views, crop, params.seed)
        slow, fast = [], []
        for path in files:
            works: dict[str, Callable[[], object]] = {
                "baseline": partial(prepare, path, path.name, transform, crop, params.seed, THRESHOLD),
                "ours": partial(ours, path, path.name, make_views, crop, params.seed),
            }
            times = side_by_side(works, REPEATS)
            slow.append(statistics.median(times["baseline"]))
            fast.append(statistics.median(times["ours"]))
            ratios.append(ratio(times["baseline"], times["ours"]))
    total = sum(slow) / sum(fast)
    for name, times_of in (("baseline", slow), ("ours", fast)):
        rows.append([name, f"{1e3 * statistics.median(times_of):.1f}", f"{1e3 * sum(times_of) / len(files):.1f}"])
    print_table(
        f"View preparation, one core: {what}, {REPEATS} runs each, 300 candidates, at most 60 kept at IoU {THRESHOLD}",
        ["", "median ms an image", "mean ms an image"],
        rows,
    )
    print(f"\nratio: median {statistics.median(ratios):.1f}, of the totals {total:.1f}, least {min(ratios):.1f}")
    details = {"photos": what, "runs": REPEATS, "baseline_ms": rows[0][1], "ours_ms": rows[1][1]}
    details |= {"ratio_of_totals": round(total, 2), "least_ratio": round(min(ratios), 2)}
    record("view_preparation", {"view_preparation_ratio": round(statistics.median(ratios), 2)}, details)


if __name__ == "__main__":
    main()
