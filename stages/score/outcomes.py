"""Scoring batches of images with every method and run, and counting what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch

from stages.common.alignment import draw_places, image_vectors, pool_weights
from stages.common.params import Score
from stages.score.methods import ALL, REFINED, WHOLE, Method
from stages.score.stream import ViewBatch

PREDICTIONS = pa.schema(
    {
        "image_id": pa.string(),
        "label": pa.int32(),
        "method": pa.string(),
        "run": pa.int32(),
        "predicted": pa.int32(),
        "score": pa.float32(),
        "margin": pa.float32(),
    }
)
TOP = 5


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
        self.images += len(labels)
        self.top1 += (outcome.predicted == labels[:, None]).sum(axis=0)
        self.top5 += outcome.in_top.sum(axis=0)

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


def score_batch(
    batch: ViewBatch,
    image_ids: Sequence[str],
    labels: torch.Tensor,
    methods: Sequence[tuple[Method, torch.Tensor]],
    score: Score,
    seed: int,
) -> list[Outcome]:
    """All methods and runs on one batch.

    Args:
        labels: [B] int64, on the device to compute on.
        methods: each with its [C, D] float32 class vectors, on that device.
    """
    device = labels.device
    views = torch.from_numpy(batch.embeddings).to(device).float()
    similarity = torch.from_numpy(batch.similarity).to(device)
    places = None
    if score.views_per_run != "all":
        places = torch.from_numpy(draw_places(seed, image_ids, score.runs, score.views_per_run)).to(device)
    vectors = {WHOLE: views[:, :1]}
    for pool in (ALL, REFINED):
        inside = torch.from_numpy(batch.pools[pool]).to(device)
        weights = pool_weights(inside, similarity, score.image_scale, places)
        vectors[pool] = image_vectors(weights, views, score.normalize)
    return [rank(vectors[method.views] @ of_class.T, labels) for method, of_class in methods]


def rank(scores: torch.Tensor, labels: torch.Tensor) -> Outcome:
    """[B, R, C] scores and [B] labels -> predictions; the lower label wins a tie."""
    score, predicted = scores.max(dim=-1)
    best = scores.topk(min(2, scores.shape[-1]), dim=-1).values
    margin = best[..., 0] - best[..., 1] if scores.shape[-1] > 1 else torch.zeros_like(score)
    # Counted, because the indices of `topk` are in no particular order where scores are equal; NaN is never in the top.
    true = scores.gather(2, labels[:, None, None].expand(-1, scores.shape[1], 1))
    higher = torch.arange(scores.shape[-1], device=scores.device) >= labels[:, None, None]
    behind = (scores < true) | ((scores == true) & higher)
    in_top = (~behind).sum(dim=-1) < TOP
    return Outcome(*(tensor.cpu().numpy() for tensor in (predicted, score, margin, in_top)))


def predictions_table(
    image_ids: Sequence[str], labels: np.ndarray, methods: Sequence[Method], outcomes: Sequence[Outcome]
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
        pa.array([m.name for m in methods]).take(method),
        np.tile(np.concatenate([np.arange(count, dtype=np.int32) for count in runs]), images),
        joined("predicted", np.int32),
        joined("score", np.float32),
        joined("margin", np.float32),
    ]
    return pa.table(columns, schema=PREDICTIONS)
