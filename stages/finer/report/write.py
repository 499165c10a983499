"""report: `metrics.json` and the probe's figures -> `data/finer/report`: tables, the plots' data, pictures."""

from __future__ import annotations

from pathlib import Path

from stages.common.tables import write_page, write_plot
from stages.finer import paths
from stages.finer.report import plots, tables
from stages.finer.report.results import Results


def write_report(results: Results) -> None:
    """Write `table.md`, `granularity.json`, `tuning.json`, `gap.json`, `attrseek.json`, `probe.json` and `pictures/`.

    Every file of plot data is written, even if there is nothing to draw, because DVC requires its outputs.
    """
    write_page(paths.REPORT / "table.md", tables.markdown(results))
    write_plot(paths.REPORT / "granularity.json", plots.granularity_rows(results))
    write_plot(paths.REPORT / "tuning.json", plots.tuning_rows(results))
    write_plot(paths.REPORT / "gap.json", plots.gap_rows(results))
    write_plot(paths.REPORT / "attrseek.json", plots.attrseek_rows(results))
    write_plot(paths.REPORT / "probe.json", plots.probe_rows(results))
    write_pictures(results, paths.REPORT / "pictures")


def write_pictures(results: Results, folder: Path) -> None:
    """Write `<dataset>-<plot>.png` for every plot with data. Earlier pictures are removed."""
    # The library for drawing takes seconds to load, and the tables do not need it.
    from stages.finer.report import pictures

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    em, points = "exact match (%)", "points of exact match"
    drawn = (
        ("granularity", plots.granularity_rows, "exact match by granularity and prompting", em, "prompting"),
        ("tuning", plots.tuning_rows, "classes in the mixture and held out, fine level", em, "prompting"),
        ("gap", plots.gap_rows, "modality gap, text only minus image only", points, "prompting"),
        ("attrseek", plots.attrseek_rows, "ATTRSEEK minus plain", points, "granularity"),
    )
    panels = {"granularity": "granularity", "tuning": "classes"}
    for name, make, title, axis, kind in drawn:
        rows, value = make(results), "em" if axis == em else "difference"
        for dataset in dict.fromkeys(str(row["dataset"]) for row in rows):
            plot = pictures.Plot(f"{dataset}: {title}", axis, value, kind, panels.get(name))
            figure = pictures.intervals([row for row in rows if row["dataset"] == dataset], results.lvlms, plot)
            pictures.save(figure, folder / f"{dataset}-{name}.png")
    probes = plots.probe_rows(results)
    for dataset in dict.fromkeys(str(row["dataset"]) for row in probes):
        mine = [row for row in probes if row["dataset"] == dataset]
        figure = pictures.probe(mine, results.lvlms, f"{dataset}: linear probe")
        pictures.save(figure, folder / f"{dataset}-probe.png")


def say_where() -> None:
    """Print where the files of the report are."""
    if not (paths.REPORT / "table.md").exists():
        return
    drawn = len(list((paths.REPORT / "pictures").glob("*.png")))
    print(f"\ntable     {paths.REPORT / 'table.md'}")
    print(f"pictures  {paths.REPORT / 'pictures'} ({drawn})")
