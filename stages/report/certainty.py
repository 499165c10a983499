"""What a report of images without labels says: which classes were predicted, and how sure the methods are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from stages.common.artifacts import UNTRAINED, PredictionsParameters
from stages.common.errors import UserError
from stages.common.labels import Labelled
from stages.common.metrics import read_metrics
from stages.common.predictions import read_best
from stages.common.tables import Opened
from stages.report import made_of
from stages.report.table import NOTHING, UNTRAINED_NOTE, Named, identity, shown_as

HEADINGS = ("method", "score", "margin", "agreement", "views", "texts", "images", "runs")
CLASS_HEADINGS = ("class", "images", "margin", "agreement")
IMAGE_HEADINGS = ("image", "predicted", "runner-up", "margin", "agreement")
LEFT = {"method", "views", "texts", "class", "image", "predicted", "runner-up"}
LEGEND = (
    "Means over images: the score of the predicted class, its margin to the next class, and the share of the runs "
    "that agree. Without labels there are no accuracies."
)
MOST_CLASSES, LEAST_CERTAIN = 30, 10
"""Rows of the tables of predicted classes and of the least certain images."""


@dataclass(frozen=True)
class Sureness:
    """How sure a method is, mean over images."""

    method: str
    score: float
    margin: float
    agreement: float
    images: int
    runs: int


@dataclass(frozen=True, kw_only=True)
class Unlabelled(Named):
    """All methods on a data set without labels."""

    rows: list[Sureness]

    @property
    def heading(self) -> str:
        images = self.rows[0].images
        return f"{self.title}: {images} image{'s' if images != 1 else ''} without labels"

    @property
    def notes(self) -> list[str]:
        return [UNTRAINED_NOTE] if self.untrained else []


@dataclass(frozen=True)
class Predicted:
    """What one method predicts of N images."""

    method: str
    image_ids: Sequence[str]
    first: np.ndarray
    """[N] int64, the predicted class."""
    second: np.ndarray
    """[N] int64, the runner-up; -1 where there is one class alone."""
    score: np.ndarray
    margin: np.ndarray
    agreement: np.ndarray
    """[N] float32 each, as `Best` has them."""

    def by_certainty(self) -> np.ndarray:
        """[N] places of the images, the surest first: by margin, then in their order."""
        return np.argsort(-self.margin, kind="stable")


def is_unlabelled(metrics: Path) -> bool:
    """Whether metrics are those of a data set without labels, if the file can be read at all."""
    try:
        own = [own for own in json.loads(metrics.read_text(encoding="utf-8")).values() if isinstance(own, dict)]
    except (OSError, ValueError, AttributeError):
        return False
    return bool(own) and all("margin" in one and "top1" not in one for one in own)


def _sureness(method: str, figures: Mapping[str, Any]) -> Sureness:
    score, margin, agreement = (float(figures[name]) for name in ("score", "margin", "agreement"))
    return Sureness(method, score, margin, agreement, int(figures["images"]), int(figures["runs"]))


def read_unlabelled(
    dataset: str, model: str, metrics: Path, predictions: Opened[PredictionsParameters] | None
) -> Unlabelled:
    """Read `metrics.json` of a data set without labels.

    Args:
        predictions: of these metrics; None if they are missing.

    Raises:
        UserError: the file is missing, is not of that shape, or is not of the predictions.
    """
    raw, rows = read_metrics(metrics, _sureness, predictions)
    if not rows:
        raise UserError(f"{metrics} holds no method; `dvc repro` says which sources they want")
    encoder = predictions.meta.model if predictions else None
    untrained = UNTRAINED in (raw.get("weights"), encoder.pretrained if encoder else None)
    made_with = predictions.meta.parameters if predictions else None
    return Unlabelled(
        dataset=dataset, model=model, encoder=encoder, untrained=untrained, made_with=made_with, rows=rows
    )


def read_predicted(
    predictions: Opened[PredictionsParameters], images: Labelled, classes: int, method: str
) -> Predicted:
    """What one method predicts, by the mean over its runs.

    Raises:
        UserError: as `read_best`.
    """
    parts = [best for _, best in read_best(predictions, images, classes, method)]
    labels, scores = np.concatenate([p.labels for p in parts]), np.concatenate([p.scores for p in parts])
    second = labels[:, 1] if labels.shape[1] > 1 else np.full(len(labels), -1)
    margin, agreement = (np.concatenate([getattr(p, name) for p in parts]) for name in ("margin", "agreement"))
    return Predicted(method, images.image_ids, labels[:, 0], second, scores[:, 0], margin, agreement)


def plain(result: Unlabelled) -> str:
    """The table of methods as aligned text; the first line is the heading."""
    text = _table(HEADINGS, method_rows(result), "plain")
    lines = [result.heading, *result.notes, *(line.rstrip() for line in text.splitlines())]
    return "\n".join([*lines, *made_of.plain(result.made_with)])


def markdown(result: Unlabelled, predicted: Predicted, names: Sequence[str], notes: Sequence[str] = ()) -> str:
    """The page: how sure the methods are, which classes one predicts, and its least certain images."""
    lines = [f"# {result.heading}", "", identity(result)]
    lines += [f"\n**{note}**" for note in result.notes]
    lines += ["", _table(HEADINGS, method_rows(result), "github"), ""]
    lines += [LEGEND, "", f"## Predicted classes ({predicted.method})", ""]
    rows = class_rows(predicted, names)
    lines += [_table(CLASS_HEADINGS, [_escaped(row) for row in rows[:MOST_CLASSES]], "github"), ""]
    for note in class_notes(rows, names):
        lines += [note, ""]
    lines += [f"## Least certain images ({predicted.method})", ""]
    lines += [_table(IMAGE_HEADINGS, [_escaped(row) for row in least_certain(predicted, names)], "github")]
    for note in notes:
        lines += ["", note]
    if result.made_with:
        lines += made_of.markdown(result.dataset, result.made_with)
    return "\n".join(lines) + "\n"


def class_rows(predicted: Predicted, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Name, images, mean margin and mean agreement of each class that was predicted, the most frequent first."""
    counts = np.bincount(predicted.first, minlength=len(names))
    order = np.argsort(-counts, kind="stable")
    sums = [
        np.bincount(predicted.first, weights=w, minlength=len(names)) for w in (predicted.margin, predicted.agreement)
    ]
    return [
        (names[label], str(counts[label]), *(f"{total[label] / counts[label]:.4f}" for total in sums))
        for label in order[counts[order] > 0].tolist()
    ]


def class_notes(rows: Sequence[tuple[str, ...]], names: Sequence[str]) -> list[str]:
    """What the first `MOST_CLASSES` of the rows of `class_rows` leave out."""
    more = [f"{len(rows) - MOST_CLASSES} more classes were predicted."] if len(rows) > MOST_CLASSES else []
    return [*more, f"{len(names) - len(rows)} of {len(names)} classes were predicted for no image."]


def least_certain(predicted: Predicted, names: Sequence[str]) -> list[tuple[str, ...]]:
    """The rows of the least certain images, under `IMAGE_HEADINGS`."""
    places = predicted.by_certainty()[::-1][:LEAST_CERTAIN].tolist()
    return [_image_row(predicted, place, names) for place in places]


def runner_up(predicted: Predicted, place: int, names: Sequence[str]) -> str:
    """Name of the second class of an image, or a dash."""
    label = int(predicted.second[place])
    return names[label] if label >= 0 else NOTHING


def _image_row(predicted: Predicted, place: int, names: Sequence[str]) -> tuple[str, ...]:
    said = (names[predicted.first[place]], runner_up(predicted, place, names))
    return (predicted.image_ids[place], *said, f"{predicted.margin[place]:.4f}", f"{predicted.agreement[place]:.2f}")


def method_rows(result: Unlabelled) -> list[tuple[str, ...]]:
    """The rows of the table of methods, under `HEADINGS`."""
    return [
        (
            row.method,
            *(f"{value:.4f}" for value in (row.score, row.margin)),
            f"{row.agreement:.2f}",
            *shown_as(row.method),
            str(row.images),
            str(row.runs),
        )
        for row in result.rows
    ]


def _escaped(row: Sequence[str]) -> list[str]:
    """Cells of a Markdown table: names may hold its bars, and ends of lines."""
    return [" ".join(cell.replace("|", "\\|").split()) for cell in row]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], form: str) -> str:
    sides = ["left" if name in LEFT else "right" for name in head]
    if form == "github":
        return tabulate(rows, head, form, disable_numparse=True, colalign=sides)
    # The headings are a row, because tabulate makes columns wider for real ones.
    return tabulate([head, *rows], (), form, disable_numparse=True, colalign=sides, preserve_whitespace=True)
