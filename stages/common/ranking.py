"""From scores to predictions and metrics: one rule for every method.

Which class an image is given, by what margin, and whether the true one is among the first five.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch

from stages.common.artifacts import PREDICTIONS

TOP = 5

Ranks = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""[B, S] each, on the device of the scores: predicted label (int64), its score, its margin to the next class (0 where
there is no other), and whether the true class is among the first TOP (bool)."""


def rank(scores: torch.Tensor, labels: torch.Tensor) -> Ranks:
    """[B, S, C] scores and [B] labels -> predictions; the lower label wins a tie."""
    classes = scores.shape[-1]
    score, predicted = scores.max(dim=-1)
    if classes > 1:
        margin = score - scores.scatter(-1, predicted[..., None], -torch.inf).amax(dim=-1)
    else:
        margin = torch.zeros_like(score)
    # Counted, because the indices of `topk` are in no particular order where scores are equal; NaN is never in the top.
    true = scores.gather(2, labels[:, None, None].expand(-1, scores.shape[1], 1))
    not_lower = torch.arange(classes, device=scores.device) >= labels[:, None, None]
    not_ahead = (scores < true) | ((scores == true) & not_lower)
    return predicted, score, margin, not_ahead.sum(dim=-1) > classes - TOP


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
    """Counts of correct predictions of one method, by run."""

    runs: int
    images: int = 0
    top1: np.ndarray = field(init=False)
    top5: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.top1, self.top5 = np.zeros(self.runs), np.zeros(self.runs)

    def add(self, outcome: Outcome, labels: np.ndarray) -> None:
        """Count B images.

        Args:
            labels: [B], the true ones.
        """
        self.count(outcome.predicted == labels[:, None])
        self.top5 += outcome.in_top.sum(axis=0)

    def count(self, right: np.ndarray) -> None:
        """Count B images of which only is known whether the prediction is right: [B, R] bool."""
        self.images += len(right)
        self.top1 += right.sum(axis=0)

    def metrics(self) -> dict[str, float | int]:
        """Percent over images, mean over runs; `std` is the sample standard deviation of top1 over runs."""
        accuracy = 100 * self.top1 / self.images
        return {
            "top1": round(float(accuracy.mean()), 4),
            "top5": round(float(100 * self.top5.mean() / self.images), 4),
            "std": round(float(accuracy.std(ddof=1)), 4) if self.runs > 1 else 0.0,
            "images": self.images,
            "runs": self.runs,
        }


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
        labels.astype(np.int32)[image],
        pa.array(methods, pa.string()).take(method),
        np.tile(np.concatenate([np.arange(count, dtype=np.int32) for count in runs]), images),
        joined("predicted", np.int32),
        joined("score", np.float32),
        joined("margin", np.float32),
    ]
    return pa.table(columns, schema=PREDICTIONS.columns)
