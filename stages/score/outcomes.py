"""Scoring batches of images with every method and run, and counting the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from stages.common.alignment import draw_places, image_vectors, pool_weights
from stages.common.methods import WHOLE, Method
from stages.common.params import Score
from stages.common.ranking import Outcome, Ranks, Tally, predictions_table, rank
from stages.common.tables import Writer
from stages.score.stream import ViewBatch

ROWS_PER_GROUP = 1 << 17


class Ledger:
    """Collects the ranks of all batches: writes rows of predictions and counts the metrics."""

    def __init__(self, methods: Sequence[Method], runs: int, writer: Writer) -> None:
        self._methods, self._writer = methods, writer
        self._runs = [1 if method.views == WHOLE else runs for method in methods]
        self._tallies = [Tally(count) for count in self._runs]
        self._waiting: list[pa.Table] = []

    def add(self, image_ids: Sequence[str], labels: np.ndarray, ranks: Ranks) -> None:
        outcomes = fetch(ranks, self._runs)
        for tally, outcome in zip(self._tallies, outcomes, strict=True):
            tally.add(outcome, labels)
        self._waiting.append(predictions_table(image_ids, labels, [method.name for method in self._methods], outcomes))
        if sum(map(len, self._waiting)) >= ROWS_PER_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are waiting for a full row group."""
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting.clear()

    def metrics(self) -> dict[str, object]:
        return {method.name: tally.metrics() for method, tally in zip(self._methods, self._tallies, strict=True)}


@dataclass(frozen=True)
class Inputs:
    """What B images are scored from, on the device."""

    views: torch.Tensor
    """[B, P, D] float16, as `ViewBatch.embeddings`."""
    similarity: torch.Tensor
    pools: dict[str, torch.Tensor]
    places: torch.Tensor | None
    """[B, R, V] float64: which views each run draws; None: every view of the pool once."""
    labels: torch.Tensor
    """[B] int64, the true ones."""


def prepare(
    batch: ViewBatch, image_ids: Sequence[str], labels: np.ndarray, score: Score, seed: int, device: torch.device
) -> Inputs:
    """Draw the runs' views of one batch and put all of it on the device, without waiting for the device."""
    places = None
    if score.views_per_run != "all":
        places = _to_device(draw_places(seed, image_ids, score.runs, score.views_per_run), device)
    return Inputs(
        _to_device(batch.embeddings, device),
        _to_device(batch.similarity, device),
        {name: _to_device(inside, device) for name, inside in batch.pools.items()},
        places,
        _to_device(labels.astype(np.int64), device),
    )


def _to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


class Classes(NamedTuple):
    """What a method compares images with, on the device."""

    method: Method
    vectors: torch.Tensor
    """[C, D] float32."""
    first: torch.Tensor | None = None
    """[C] int64: the lowest label with the same vector, if classes share one."""

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        """[B, R, D] image vectors -> [B, R, C]. Classes with the same vector get the same score, to the last bit."""
        scores = images @ self.vectors.T
        return scores if self.first is None else scores[..., self.first]


def score_batch(inputs: Inputs, methods: Sequence[Classes], score: Score) -> Ranks:
    """All methods and runs on one batch: method after method, run after run. On a GPU it returns before the work is
    done.

    Args:
        methods: with what each compares images with.
    """
    views = inputs.views.float()
    vectors = {WHOLE: views[:, :1]}
    for pool in {classes.method.views for classes in methods} - {WHOLE}:
        weights = pool_weights(inputs.pools[pool], inputs.similarity, score.image_scale, inputs.places)
        vectors[pool] = image_vectors(weights, views, score.normalize)
    return rank(torch.cat([c.scores(vectors[c.method.views]) for c in methods], dim=1), inputs.labels)


def fetch(ranks: Ranks, runs: Sequence[int]) -> list[Outcome]:
    """The outcome of each method; waits until the device has computed it."""
    arrays = [tensor.cpu().numpy() for tensor in ranks]
    ends = np.cumsum(runs)
    return [Outcome(*(array[:, end - count : end] for array in arrays)) for count, end in zip(runs, ends, strict=True)]
