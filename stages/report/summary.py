"""One table over data sets, models and methods: write `data/summary/summary.{md,csv,tex}`, and print it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from stages.common import paths
from stages.common.errors import UserError, nearest, run
from stages.common.methods import UNREFINED
from stages.common.params import Params, load_params
from stages.common.tables import remake, write_text
from stages.report.published import compare, read_published
from stages.report.rows import SummaryRow, read_row
from stages.report.summary_csv import csv_text
from stages.report.summary_formats import latex, markdown, plain
from stages.report.summary_tables import METRICS, Summary, accuracies, differences, make_grid
from stages.report.table import DEMO_NOTE, UNTRAINED_NOTE


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.report.summary", description=__doc__)
    parser.add_argument("--metric", choices=METRICS, default="top1", help="what to print; the files have all")
    parser.add_argument(
        "--reference", help="the method that the printed differences are to; the files have the reports'"
    )
    parser.add_argument("--quiet", action="store_true", help="print no table")
    asked = parser.parse_args()
    params = load_params()
    rows = read_rows(params)
    if not rows:
        raise UserError(
            f"no report has left figures in {paths.summary() / 'rows'} yet; run `dvc repro`, or `dvc pull` in a clone"
        )
    reference = asked.reference or usual_reference(rows)
    require_scored(rows, asked.reference)
    write_summary(params, rows)
    where = f"summary   {paths.summary() / 'summary'}.md, .csv, .tex"
    if asked.quiet:
        print(f"{where}; `python -m stages.report.summary` prints the table")
        return
    print(plain(summarise(params, rows, reference, [asked.metric])), end="\n\n")
    print(where)
    for row in rows:
        if paths.report(row.dataset, row.model).exists():
            print(
                f"report    {paths.report(row.dataset, row.model)}: table.md, {paths.REPORT_PAGE}, plots and pictures"
            )
    print("python -m stages.report   every table\ndvc plots show            plots and pictures in the browser")
    print("dvc metrics show          top-1 of every method")


def write_summary(params: Params, rows: Sequence[SummaryRow]) -> None:
    """Write the files, which hold all metrics and the differences to the reports' reference."""
    reference = usual_reference(rows)
    whole = summarise(params, rows, reference, list(METRICS))
    write_text(paths.summary() / "summary.md", markdown(whole))
    write_text(paths.summary() / "summary.tex", latex(whole))
    grid = make_grid(rows, params.datasets)
    write_text(paths.summary() / "summary.csv", csv_text(grid, whole.comparisons, reference))


def read_rows(params: Params) -> list[SummaryRow]:
    """The rows that params.yaml lists and that are there: by model, each by data set. Train splits are left out.

    Raises:
        UserError: a row is damaged, or of something else.
    """
    found = []
    for model in params.models:
        for dataset in params.evaluated():
            path = paths.summary_row(dataset, model)
            if path.exists():
                row = read_row(path)
                if (row.dataset, row.model) != (dataset, model):
                    raise UserError(f"{path} is of {row.dataset} with {row.model}; {remake(path)}")
                found.append(row)
    return found


def usual_reference(rows: Sequence[SummaryRow]) -> str:
    """The method that the reports' differences are to."""
    return next((row.reference for row in rows if row.reference), UNREFINED)


def require_scored(rows: Sequence[SummaryRow], method: str | None) -> None:
    """Refuse a reference that nothing was scored with.

    Raises:
        UserError: names the methods that there are.
    """
    known = list(dict.fromkeys(name for row in rows for name in row.methods))
    if method is not None and method not in known:
        raise UserError(f"--reference '{method}' was not scored{nearest(method, known)}; there are: {', '.join(known)}")


def summarise(params: Params, rows: Sequence[SummaryRow], reference: str, metrics: Sequence[str]) -> Summary:
    """The tables of these metrics, each followed by the differences to the reference; published figures with top-1."""
    grid = make_grid(rows, params.datasets)
    tables = []
    for metric in metrics if grid.rows else ():
        compared = differences(grid, metric, reference)
        tables += [accuracies(grid, metric), *([compared] if compared.blocks else [])]
    comparisons = compare(rows, params, read_published()) if "top1" in metrics else []
    return Summary(tables, comparisons, notes(params, rows))


def notes(params: Params, rows: Sequence[SummaryRow]) -> list[str]:
    """Warnings about the figures, and what is not in the tables."""
    shown = [row for row in rows if row.methods]
    there = {(row.dataset, row.model) for row in rows}
    missing = {model: [key for key in params.evaluated() if (key, model) not in there] for model in params.models}
    said = {
        UNTRAINED_NOTE: dict.fromkeys(row.model for row in shown if row.untrained),
        DEMO_NOTE: [_pair(row) for row in shown if row.demo],
    }
    lines = [f"{', '.join(where)}: {note}" for note, where in said.items() if where]
    lines += mixed(shown)
    unlabelled = [_pair(row) for row in rows if not row.labelled]
    if unlabelled:
        lines.append(f"Without labels, and so without accuracies: {', '.join(unlabelled)}.")
    train = [key for key in params.datasets if key not in params.evaluated()]
    if train:
        lines.append(f"Train splits, and so not in the tables: {', '.join(train)}.")
    if any(missing.values()):
        which = [f"{model} on {', '.join(keys)}" for model, keys in missing.items() if keys]
        lines.append(f"Not computed yet (run dvc repro): {'; '.join(which)}.")
    return lines


def mixed(rows: Sequence[SummaryRow]) -> list[str]:
    """What should be the same in all rows of a model, or in all rows, and is not."""
    lines = []
    for model in dict.fromkeys(row.model for row in rows):
        encoders = [row.encoder for row in rows if row.model == model and row.encoder]
        if any(not encoders[0].same_model(other) for other in encoders[1:]):
            lines.append(f"{model} had other weights or settings on some data sets; run dvc repro.")
    for name, values in (
        ("versions of the scoring", {row.scoring or "unknown" for row in rows}),
        ("seeds", {"unknown" if row.seed is None else str(row.seed) for row in rows}),
    ):
        if len(values) > 1:
            lines.append(f"The figures are of several {name}: {', '.join(sorted(values))}; run dvc repro.")
    return lines


def _pair(row: SummaryRow) -> str:
    return f"{row.dataset} with {row.model}"


if __name__ == "__main__":
    run(main)
