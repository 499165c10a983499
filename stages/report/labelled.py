"""The rows of classifiers that learn from labelled images, which stand below the table of zero-shot methods."""

from __future__ import annotations

from tabulate import tabulate

from stages.common import paths
from stages.common.artifacts import UNTRAINED, PredictionsParameters
from stages.common.ranking import TOP
from stages.common.supervised import CLASSIFIERS, FEATURES, Supervised, changed_since, read_supervised
from stages.common.tables import Opened
from stages.report.table import NOTHING

HEADINGS = {"top1": "top-1", "mean_per_class": "per class", "top5": "top-5"}
"""Figures that a table shows, as far as they are there."""


def labelled(dataset: str, model: str, predictions: Opened[PredictionsParameters] | None) -> str:
    """The rows under a rule, as text that ends in a line end; empty where nothing was trained.

    Figures that are out of date are left out, and a line says so. The stage may have been run by hand.

    Args:
        predictions: of the zero-shot methods above; None if they are missing.

    Raises:
        UserError: as `read_supervised`.
    """
    path = paths.supervised(dataset, model)
    if not path.exists():
        return ""
    found = read_supervised(path)
    changed = changed_since(found)
    if not changed and predictions and not found.encoder.same_model(predictions.meta.encoder()):
        changed = "the encoder"
    if not changed:
        return plain(found)
    again = f"python -m stages.supervised --dataset {dataset} --train {found.train} --model {model}"
    return f"Not shown: {path}, because {changed} has changed since; run `{again}`.\n"


def plain(found: Supervised) -> str:
    """A rule, the rows and the notes."""
    figures = [name for name in HEADINGS if all(name in own for own in found.methods.values())]
    rows = [["method", *(HEADINGS[name] for name in figures), "views", "classifier", "images"]]
    for kind in FEATURES:
        for classifier, shown in CLASSIFIERS.items():
            own = found.methods.get(name := f"{classifier}{kind.suffix}")
            if own:
                few = found.classes < TOP  # so that every answer is among the first five
                cells = [NOTHING if few and figure == "top5" else f"{own[figure]:.2f}" for figure in figures]
                rows.append([name, *cells, kind.shown, shown, str(own["images"])])
    sides = ["left", *("right" for _ in figures), "left", "left", "right"]
    text = tabulate(rows, (), "plain", disable_numparse=True, colalign=sides)
    weights = f" — {UNTRAINED}" if found.encoder.pretrained == UNTRAINED else ""
    rule = f"---- with {found.train_images} labelled images of {found.train}, not zero-shot{weights} ----"
    return "\n".join([rule, *(line.rstrip() for line in text.splitlines()), *found.notes]) + "\n"
