"""The predictions of a data set and model, `predictions.parquet` and `top5.parquet`: the one reader of each.

Both are checked against the images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.common import methods, paths
from stages.common.artifacts import PREDICTIONS, TOP5, PredictionsParameters
from stages.common.columns import list_rows
from stages.common.digests import ALL
from stages.common.errors import UserError
from stages.common.labels import Labelled, label_column
from stages.common.params import PARAMS_FILE
from stages.common.ranking import Best
from stages.common.tables import Opened, open_table, remake, require_same

ROWS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Answers:
    """What the methods answered about some images."""

    span: slice
    """Which images of the data set."""
    predicted: dict[str, np.ndarray]
    """Method -> [B, R] int32, the predicted label in each run."""


def open_predictions(
    dataset: str, model: str, asked: PredictionsParameters | None = None
) -> Opened[PredictionsParameters]:
    """`predictions.parquet` of a data set and model.

    Args:
        asked: what they must have been made with, by params.yaml; None: anything.

    Raises:
        UserError: as `open_table`, or they were made with something else.
    """
    predictions = open_table(paths.predictions(dataset, model), PREDICTIONS, dataset)
    if asked:
        wanted, made_with = (PARAMS_FILE, asked.settings()), predictions.meta.parameters.settings()
        require_same("score", (predictions.path, made_with), wanted, "run `dvc repro`")
    return predictions


def read_answers(predictions: Opened[PredictionsParameters], images: Labelled, classes: int) -> Iterator[Answers]:
    """The answers about all images, some images at a time. Only after the last are all of them verified.

    Raises:
        UserError: damaged predictions, or not every image, method and run once, in order, with the image's label.
    """
    path = predictions.path
    rows, over = divmod(predictions.rows, len(images.image_ids))
    if over or not rows:
        raise UserError(
            f"{path} has {predictions.rows} rows, {_images(predictions)} has {len(images.image_ids)} images: not "
            f"as many rows for each; {remake(path)}"
        )
    columns = ["image_id", "label", "method", "run", "predicted"]
    size = max(1, ROWS_AT_ONCE // rows)
    layout: list[tuple[str, int]] = []
    for number, table in enumerate(predictions.batches(size * rows, columns)):
        layout = layout or _layout(predictions, table[:rows])
        span = slice(number * size, number * size + len(table) // rows)
        _require_order(predictions, table, layout, images, span)
        answered = table["predicted"].to_numpy()
        if answered.max() >= classes:
            raise UserError(f"{path} predicts the label {answered.max()} of {classes} classes; {remake(path)}")
        ends = np.cumsum([runs for _, runs in layout])
        parts = np.split(answered.reshape(-1, rows), ends[:-1], axis=1)
        yield Answers(span, {method: part for (method, _), part in zip(layout, parts, strict=True)})


def _images(predictions: Opened[PredictionsParameters]) -> Path:
    return paths.images(predictions.meta.dataset)


def _layout(predictions: Opened[PredictionsParameters], image: pa.Table) -> list[tuple[str, int]]:
    """The methods and their numbers of runs, from the rows of the first image."""
    asked = predictions.meta.parameters
    found = [(method, len(list(own))) for method, own in groupby(image["method"].to_pylist())]
    known = {method.name: 1 if method.views == methods.WHOLE else asked.runs for method in methods.METHODS}
    wanted = [(method, known.get(method)) for method in asked.methods if method in dict(found)]
    if found != wanted:
        raise UserError(
            f"{predictions.path} does not have each method's runs once for each image of {_images(predictions)}; "
            f"{remake(predictions.path)}"
        )
    return found


def _require_order(
    predictions: Opened[PredictionsParameters],
    table: pa.Table,
    layout: list[tuple[str, int]],
    images: Labelled,
    span: slice,
) -> None:
    """Refuse rows that are not image after image, method after method, run after run."""
    image_ids, labels = images.image_ids[span], images.labels[span]
    rows = sum(runs for _, runs in layout)
    image = np.repeat(np.arange(len(image_ids)), rows)
    methods_ = [method for method, runs in layout for _ in range(runs)]
    runs_ = np.concatenate([np.arange(runs, dtype=np.int32) for _, runs in layout])
    wanted = {
        "image_id": pa.array(image_ids, pa.string()).take(image),
        "label": label_column(labels[image]),
        "method": pa.array(methods_, pa.string()).take(np.tile(np.arange(rows), len(image_ids))),
        "run": pa.array(np.tile(runs_, len(image_ids)), pa.int32()),
    }
    for name, right in wanted.items():
        if not table[name].combine_chunks().equals(right):
            raise UserError(
                f"{predictions.path} does not have the images of {_images(predictions)} in order, each with every "
                f"method and run: its column '{name}' differs; {remake(predictions.path)}"
            )


def read_best(
    predictions: Opened[PredictionsParameters], images: Labelled, classes: int, method: str
) -> Iterator[tuple[slice, Best]]:
    """The best classes of all images by one method, some images at a time, from `top5.parquet`.

    Only after the last are all of them verified.

    Raises:
        UserError: damaged, not written with the predictions, without the method, or not every image and method once,
            in order.
    """
    path = paths.top5(predictions.meta.dataset, predictions.path.parent.name)
    top5 = open_table(path, TOP5, predictions.meta.dataset)
    if predictions.digests.get(TOP5.name) != top5.digests[ALL]:
        raise UserError(f"{path} was not written with {predictions.path}; run `dvc repro -f score`")
    rows, over = divmod(top5.rows, len(images.image_ids))
    wrong = f"{path} does not have each method once for each image of {_images(predictions)}; {remake(path)}"
    if over or not rows:
        raise UserError(wrong)
    size = max(1, ROWS_AT_ONCE // rows)
    layout: list[str] = []
    for number, table in enumerate(top5.batches(size * rows)):
        layout = layout or table["method"][:rows].to_pylist()
        count = len(table) // rows
        span = slice(number * size, number * size + count)
        image_ids = pa.array(images.image_ids[span], pa.string()).take(np.repeat(np.arange(count), rows))
        same = table["image_id"].combine_chunks().equals(image_ids)
        if not same or table["method"].to_pylist() != layout * count or len(set(layout)) != rows:
            raise UserError(wrong)
        if method not in layout:
            raise UserError(f"{path} has no rows of the method '{method}'; {remake(path)}")
        own = table.take(np.arange(layout.index(method), len(table), rows)).combine_chunks()
        labels, scores = (list_rows(own[name]) for name in ("classes", "scores"))
        if labels.max() >= classes:
            raise UserError(f"{path} predicts the label {labels.max()} of {classes} classes; {remake(path)}")
        yield span, Best(labels, scores, own["agreement"].to_numpy())
