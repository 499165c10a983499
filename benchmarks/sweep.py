"""A sweep over five IoU thresholds against one: crop, embed and every score, each a process, ViT-B/32 on the CPU."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import print_table, ratio, record
from benchmarks.photos import photos
from benchmarks.project import change_params, make_project, run_stage
from stages.common import paths

IMAGES, REPEATS, MODEL = 24, 2, "vit-b-32"
THRESHOLDS = [0.5, 0.6, 0.7, 0.8, 0.9]
ONE = [0.8]


def run(folder: Path, thresholds: list[float]) -> dict[str, float]:
    """Seconds by stage of a sweep from nothing."""

    def set_thresholds(raw: dict[str, Any]) -> None:
        raw["crop"]["iou_thresholds"] = thresholds
        raw["score"]["iou_threshold"] = thresholds[0]

    change_params(folder, set_thresholds)
    for shard in (folder / paths.views("photos", MODEL)).glob("*.parquet"):
        shard.unlink()
    taken = {"crop": run_stage(folder, "crop")[0], "embed": run_stage(folder, "embed", MODEL)[0], "score": 0.0}
    for threshold in thresholds:
        change_params(folder, lambda raw, threshold=threshold: raw["score"].update(iou_threshold=threshold))  # type: ignore[misc]
        taken["score"] += run_stage(folder, "score", MODEL)[0]
    return taken


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "project"
        files, what = photos(Path(name) / "photos", IMAGES)
        make_project(folder, files, classes=IMAGES, sentences=5, model=MODEL)
        run_stage(folder, "ingest")
        run_stage(folder, "refine", MODEL)
        five, one = [], []
        for _ in range(REPEATS):
            five.append(run(folder, THRESHOLDS))
            one.append(run(folder, ONE))
    rows = []
    for label, runs in ((f"one threshold, {ONE[0]}", one), (f"{len(THRESHOLDS)}: {THRESHOLDS}", five)):
        stages = [statistics.median(taken[stage] for taken in runs) for stage in ("crop", "embed", "score")]
        rows.append([label, *(f"{seconds:.1f}" for seconds in stages), f"{sum(stages):.1f}"])
    print_table(
        f"A sweep over IoU thresholds: {what}, ViT-B/32, {REPEATS} runs; median seconds, start-up included",
        ["thresholds", "crop", "embed", "score", "all"],
        rows,
    )
    factor = ratio([sum(taken.values()) for taken in five], [sum(taken.values()) for taken in one])
    record("sweep", {"sweep_ratio": round(factor, 3)}, {"photos": what, "runs": REPEATS, "one": one, "five": five})


if __name__ == "__main__":
    main()
