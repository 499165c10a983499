"""Time and peak memory of every stage as images, classes and views grow to 4 and 16 times as many.

Each stage is a process; its start-up (importing torch, loading the encoder) is in the figures. The demo's encoder, so
that the growth is the pipeline's. Draws `benchmarks/growth.png`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.common import print_table, record
from benchmarks.photos import generate
from benchmarks.project import make_project, run_stage

MODEL = "demo-clip"
FACTORS = (1, 4, 16)
BASE = {"images": 400, "classes": 25, "views": 10}
STAGES = ("ingest", "refine", "crop", "embed", "score", "report")
PICTURE = Path("benchmarks/growth.png")
SENTENCES = 20

Measured = dict[str, tuple[float, float]]
"""Stage -> seconds, MiB."""


def measure(folder: Path, files: list[Path], classes: int, views: int) -> Measured:
    """All stages once, from nothing."""

    def edit(raw: dict[str, Any]) -> None:
        raw["crop"].update(candidates=3 * views, max_views=views)
        raw["score"].update(views_per_run=views)

    make_project(folder, files, classes, SENTENCES, MODEL, edit)
    return {stage: run_stage(folder, stage, "" if stage in ("ingest", "crop") else MODEL) for stage in STAGES}


def draw(results: dict[str, dict[int, Measured]]) -> None:
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    axes = figure.subplots(2, len(results), sharex=True, sharey="row")
    for column, (axis, by_factor) in enumerate(results.items()):
        seconds, memory = axes[:, column]
        for stage in STAGES:
            measured = [by_factor[factor][stage] for factor in FACTORS]
            seconds.plot(FACTORS, [taken for taken, _ in measured], marker="o", label=stage)
            memory.plot(FACTORS, [mib / 1024 for _, mib in measured], marker="o")
        slope = [by_factor[1]["embed"][0] * factor for factor in FACTORS]
        seconds.plot(FACTORS, slope, "k:", lw=1, label="in proportion")
        seconds.set_title(f"{axis}: {BASE[axis]} to {BASE[axis] * FACTORS[-1]}")
        seconds.set_xscale("log", base=4)
        seconds.set_yscale("log")
        for plot in (seconds, memory):
            plot.grid(alpha=0.3)
            plot.set_xticks(FACTORS, [f"{factor}×" for factor in FACTORS])
            plot.minorticks_off()
    ticks = (2, 5, 10, 20, 50, 100)
    axes[0, 0].set_yticks(ticks, [str(tick) for tick in ticks])
    axes[0, 0].set_ylabel("seconds, start-up included")
    axes[1, 0].set_ylabel("peak resident memory (GiB)")
    axes[1, 0].set_ylim(0, 1.3 * max(mib / 1024 for f in results.values() for m in f.values() for _, mib in m.values()))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    results: dict[str, dict[int, Measured]] = {axis: {} for axis in BASE}
    with tempfile.TemporaryDirectory() as name:
        files = [
            generate(Path(name) / "photos" / f"{number}.jpg", number, (200, 150))
            for number in range(BASE["images"] * FACTORS[-1])
        ]
        first: Measured | None = None
        for axis in BASE:
            for factor in FACTORS:
                if factor > 1 or first is None:
                    sizes = {**BASE, axis: BASE[axis] * factor}
                    folder = Path(name) / f"{axis}-{factor}"
                    measured = measure(folder, files[: sizes["images"]], sizes["classes"], sizes["views"])
                    first = first or measured
                results[axis][factor] = measured if factor > 1 else first
    for axis, by_factor in results.items():
        print_table(
            f"{axis}, 1x = {BASE[axis]}: seconds and peak MiB of each stage (others at {BASE})",
            ["stage", *(f"{factor}x" for factor in FACTORS)],
            [
                [stage, *("{:.1f} s, {:.0f} MiB".format(*by_factor[factor][stage]) for factor in FACTORS)]
                for stage in STAGES
            ],
        )
    draw(results)
    record("growth", {}, {"base": BASE, "seconds_and_mib": results})


if __name__ == "__main__":
    main()
