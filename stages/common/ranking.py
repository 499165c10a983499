"""From predictions to tables and metrics: one rule for every method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from stages.common.artifacts import PREDICTIONS, TOP5
from stages.common.labels import label_column

TOP = 5


@dataclass(frozen=True)
class Best:
    """The K best classes of B images by the mean over a method's runs."""

    labels: np.ndarray
    """[B, K] int64, best first."""
    scores: np.ndarray
    """[B, K] float32, the mean over runs."""
    agreement: np.ndarray
    """[B] float32: the share of the runs that predict the first class."""

    @property
    def margin(self) -> np.ndarray:
        """[B] float32: from the first class to the second; 0 where there is no other."""
        return self.scores[:, 0] - self.scores[:, 1] if self.scores.shape[1] > 1 else np.zeros_like(self.scores[:, 0])


@dataclass(frozen=True)
class Outcome:
    """What a method says of B images in R runs."""

    predicted: np.ndarray
    """[B, R] int64 labels."""
    score: np.ndarray
    """[B, R] float32, of the predicted class."""
    margin: np.ndarray
    """[B, R] float32, to the next class; 0 where there is no other."""
    in_top: np.ndarray
    """[B, R] bool: the true class is among the first five."""


@dataclass
class Tally:
    """Counts of correct predictions of one method, by run and by class."""

    runs: int
    classes: int
    images: int = 0
    top1: np.ndarray = field(init=False)
    top5: np.ndarray = field(init=False)
    of_class: np.ndarray = field(init=False)
    """[C] int64: images of each class."""
    right_of_class: np.ndarray = field(init=False)
    """[C] int64: correct predictions of these images, in all runs."""

    def __post_init__(self) -> None:
        self.top1, self.top5 = np.zeros(self.runs), np.zeros(self.runs)
        self.of_class, self.right_of_class = np.zeros((2, self.classes), dtype=np.int64)

    def add(self, outcome: Outcome, labels: np.ndarray) -> None:
        """Count B images.

        Args:
            labels: [B], the true ones.
        """
        self.count(outcome.predicted == labels[:, None], labels)
        self.top5 += outcome.in_top.sum(axis=0)

    def count(self, right: np.ndarray, labels: np.ndarray) -> None:
        """Count B images when only the correctness of each prediction is known.

        Args:
            right: [B, R] bool.
            labels: [B], the true ones.
        """
        self.images += len(right)
        self.top1 += right.sum(axis=0)
        self.of_class += np.bincount(labels, minlength=self.classes)
        # Whole numbers of float64, which are exact.
        self.right_of_class += np.bincount(labels, right.sum(axis=1), self.classes).astype(np.int64)

    def recalls(self) -> np.ndarray:
        """[C] float64: the share of each class's images that are right, in percent, mean over runs; NaN without
        images."""
        answers = self.runs * self.of_class
        return 100 * np.divide(self.right_of_class, answers, out=np.full(self.classes, np.nan), where=answers > 0)

    def metrics(self) -> dict[str, float | int]:
        """Percent over images, mean over runs.

        `mean_per_class` is the mean of `recalls` over the classes that have images. `std` is the sample standard
        deviation of top1 over runs.
        """
        accuracy = 100 * self.top1 / self.images
        return {
            "top1": round(float(accuracy.mean()), 4),
            "top5": round(float(100 * self.top5.mean() / self.images), 4),
            "mean_per_class": round(float(np.nanmean(self.recalls())), 4),
            "std": round(float(accuracy.std(ddof=1)), 4) if self.runs > 1 else 0.0,
            "images": self.images,
            "runs": self.runs,
        }


@dataclass
class Certainty:
    """How sure a method is of its predictions, where the true classes are not known."""

    runs: int
    images: int = 0
    score: float = 0.0
    margin: float = 0.0
    agreement: float = 0.0

    def add(self, found: Best) -> None:
        """Count B images."""
        self.images += len(found.labels)
        self.score += float(found.scores[:, 0].sum(dtype=np.float64))
        self.margin += float(found.margin.sum(dtype=np.float64))
        self.agreement += float(found.agreement.sum(dtype=np.float64))

    def metrics(self) -> dict[str, float | int]:
        """Means over images of what `Best` has of each."""
        means = {name: getattr(self, name) / self.images for name in ("score", "margin", "agreement")}
        return {**{name: round(mean, 6) for name, mean in means.items()}, "images": self.images, "runs": self.runs}


def predictions_table(
    image_ids: Sequence[str], labels: np.ndarray, methods: Sequence[str], outcomes: Sequence[Outcome]
) -> pa.Table:
    """Rows of some images: image after image, method after method, run after run."""
    runs = [outcome.predicted.shape[1] for outcome in outcomes]
    rows_an_image, images = sum(runs), len(image_ids)
    image = np.repeat(np.arange(images), rows_an_image)
    method = np.tile(np.repeat(np.arange(len(methods)), runs), images)

    def joined(name: str, dtype: type) -> np.ndarray:
        return np.concatenate([getattr(outcome, name) for outcome in outcomes], axis=1).reshape(-1).astype(dtype)

    columns = [
        pa.array(image_ids, pa.string()).take(image),
        label_column(labels.astype(np.int32)[image]),
        pa.array(methods, pa.string()).take(method),
        np.tile(np.concatenate([np.arange(count, dtype=np.int32) for count in runs]), images),
        joined("predicted", np.int32),
        joined("score", np.float32),
        joined("margin", np.float32),
    ]
    return pa.table(columns, schema=PREDICTIONS.columns)


def top5_table(
    image_ids: Sequence[str], labels: np.ndarray, methods: Sequence[str], best_of: Sequence[Best]
) -> pa.Table:
    """Rows of some images: image after image, method after method."""
    images = np.repeat(np.arange(len(image_ids)), len(methods))

    def lists(name: str, dtype: type) -> pa.ListArray:
        rows = np.stack([getattr(found, name) for found in best_of], axis=1)  # [B, M, K]
        ends = np.arange(len(images) + 1, dtype=np.int32) * rows.shape[2]
        return pa.ListArray.from_arrays(pa.array(ends), pa.array(rows.reshape(-1).astype(dtype)))

    agreement = np.stack([found.agreement for found in best_of], axis=1).reshape(-1)
    columns = [
        pa.array(image_ids, pa.string()).take(images),
        label_column(labels.astype(np.int32)[images]),
        pa.array(list(methods) * len(image_ids), pa.string()),
        lists("labels", np.int32),
        lists("scores", np.float32),
        agreement.astype(np.float32),
    ]
    return pa.table(columns, schema=TOP5.columns)
