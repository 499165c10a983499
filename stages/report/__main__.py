"""Write tables, plots and pictures of one data set and model; without arguments, print all that was computed."""

from __future__ import annotations

import sys
from pathlib import Path

from stages.common import paths, tables
from stages.common.cli import parse_job
from stages.common.errors import UserError, run
from stages.common.params import Params, load_params
from stages.report.table import Result, plain, read_result


def main() -> None:
    if len(sys.argv) == 1:
        summary(load_params())
        return
    job = parse_job("report", __doc__, "dataset", "model")
    # Drawing needs libraries that take seconds to load; the summary does without.
    from stages.report.write import write_report

    result = write_report(job.dataset, job.model, job.params.report.pictures, job.params.datasets[job.dataset].root)
    print(plain(result))
    _say_where(paths.report(job.dataset, job.model))


def summary(params: Params) -> None:
    """Print the table of every data set and model that has metrics.

    Raises:
        UserError: none has.
    """
    found = 0
    for dataset, entry in params.datasets.items():
        for model in params.models:
            metrics = paths.metrics(dataset, model)
            if not metrics.exists():
                continue
            found += 1
            print(plain(_read(dataset, model, metrics, demo=entry.reader == "demo")))
            _say_where(paths.report(dataset, model))
            print()
    if not found:
        raise UserError("nothing is computed yet: no data set and model of params.yaml has metrics; run `dvc repro`")
    print("dvc plots show     plots and pictures in the browser\ndvc metrics show   every figure")


def _read(dataset: str, model: str, metrics: Path, *, demo: bool) -> Result:
    """Metrics travel with git, predictions and classes with a DVC remote: these may be absent."""
    predictions = paths.predictions(dataset, model)
    meta = tables.read_meta(predictions, "predictions") if predictions.exists() else {}
    beside = paths.attrseek(dataset, model) / "metrics.json"
    table = paths.classes(dataset)
    classes = tables.open_parquet(table).metadata.num_rows if table.exists() else None
    return read_result(dataset, model, metrics, meta, demo=demo, beside=beside, classes=classes)


def _say_where(folder: Path) -> None:
    if not folder.exists():
        return
    print(f"table     {folder / 'table.md'}")
    print(f"plots     {folder / 'methods.png'}, {folder / 'confusion.png'}")
    for name in ("boxes", "evidence"):
        print(f"pictures  {folder / name} ({len(list((folder / name).glob('*.png')))})")


if __name__ == "__main__":
    run(main)
