"""Printing the results: the table of every data set and model, and where its files are."""

from __future__ import annotations

from pathlib import Path

from stages.common import paths
from stages.common.artifacts import PREDICTIONS, PredictionsParameters
from stages.common.errors import UserError
from stages.common.labels import read_classes
from stages.common.params import Params
from stages.common.tables import Opened, open_table
from stages.report import certainty
from stages.report.labelled import labelled
from stages.report.table import Result, plain, read_result


def print_all(params: Params) -> None:
    """Print the table of every data set and model that has metrics.

    Raises:
        UserError: there are none.
    """
    found = 0
    for dataset, entry in params.datasets.items():
        for model in params.models:
            metrics = paths.metrics(dataset, model)
            if not metrics.exists():
                continue
            found += 1
            if certainty.is_unlabelled(metrics):
                print(certainty.plain(certainty.read_unlabelled(dataset, model, metrics, _predictions(dataset, model))))
            else:
                print(plain(_read(dataset, model, metrics, demo=entry.reader == "demo")))
                print(labelled(dataset, model, _predictions(dataset, model)), end="")
            say_where(paths.report(dataset, model))
            print()
    if not found:
        raise UserError("nothing is computed yet: no data set and model of params.yaml has metrics; run `dvc repro`")
    print("dvc plots show     plots and pictures in the browser\ndvc metrics show   top-1 of every method")


def _predictions(dataset: str, model: str) -> Opened[PredictionsParameters] | None:
    path = paths.predictions(dataset, model)
    return open_table(path, PREDICTIONS, dataset) if path.exists() else None


def _read(dataset: str, model: str, metrics: Path, *, demo: bool) -> Result:
    """Metrics travel with git, predictions and classes with a DVC remote: these may be absent."""
    predictions, attrseek = _predictions(dataset, model), paths.attrseek(dataset, model)
    beside = None
    if (attrseek / "metrics.json").exists() and (attrseek / "predictions.parquet").exists():
        beside = attrseek / "metrics.json", open_table(attrseek / "predictions.parquet", PREDICTIONS, dataset)
    classes = len(read_classes(dataset).names) if paths.classes(dataset).exists() else None
    return read_result(dataset, model, metrics, predictions, demo=demo, beside=beside, classes=classes)


def say_where(folder: Path) -> None:
    if not folder.exists():
        return
    print(f"table     {folder / 'table.md'}")
    print(f"plots     {folder / 'methods.png'}, {folder / 'confusion.png'}")
    if (folder / paths.REPORT_PAGE).exists():
        print(f"page      {folder / paths.REPORT_PAGE} (all of it in one file, to send to others)")
    for name in ("boxes", "evidence"):
        print(f"pictures  {folder / name} ({len(list((folder / name).glob('*.png')))})")
