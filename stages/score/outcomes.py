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
from stages.common.ranking import Best, Certainty, Outcome, Tally, predictions_table, top5_table
from stages.common.ranks import Ranks, best, rank
from stages.common.tables import Writer
from stages.score.methods import first_equals
from stages.score.people import People
from stages.score.stream import ViewBatch

ROWS_PER_GROUP = 1 << 17


class Ledger:
    """Collects the scores of all batches: writes the rows of the tables and counts the metrics."""

    def __init__(
        self,
        methods: Sequence[Method],
        runs: int,
        classes: int,
        writer: Writer,
        top5: Writer,
        people: People,
        *,
        labelled: bool,
    ) -> None:
        self._names = [method.name for method in methods]
        self._predictions, self._top5, self._people = Waiting(writer), Waiting(top5), people
        self._runs = [1 if method.views == WHOLE else runs for method in methods]
        self._tallies = [Tally(count, classes) for count in self._runs] if labelled else []
        self._certainties = [] if labelled else [Certainty(count) for count in self._runs]

    def add(self, image_ids: Sequence[str], labels: np.ndarray, scored: Scored) -> None:
        outcomes = fetch(scored.ranks, self._runs)
        found = fetch_best(scored, outcomes)
        for tally, outcome in zip(self._tallies, outcomes, strict=False):
            tally.add(outcome, labels)
        for certainty, own in zip(self._certainties, found, strict=False):
            certainty.add(own)
        self._predictions.add(predictions_table(image_ids, labels, self._names, outcomes))
        self._top5.add(top5_table(image_ids, labels, self._names, found))
        self._people.add(image_ids, labels, found[self._names.index(self._people.method)])

    def flush(self) -> None:
        """Write the rows that are waiting for a full row group."""
        self._predictions.flush()
        self._top5.flush()

    def metrics(self) -> dict[str, object]:
        """By method: accuracies, or where the true classes are not known, how sure it is."""
        counted: Sequence[Tally | Certainty] = self._tallies or self._certainties
        return {name: own.metrics() for name, own in zip(self._names, counted, strict=True)}


class Waiting:
    """Rows that wait for a full row group."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._tables: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        self._tables.append(table)
        if sum(map(len, self._tables)) >= ROWS_PER_GROUP:
            self.flush()

    def flush(self) -> None:
        if self._tables:
            self._writer.write_table(pa.concat_tables(self._tables))
            self._tables.clear()


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
    """[B] int64, the true ones; 0 where they are not known, and whether they are among the first five says nothing."""


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
        _to_device(labels.astype(np.int64).clip(min=0), device),
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


def on_device(methods: Sequence[Method], vectors: Sequence[np.ndarray], device: torch.device) -> list[Classes]:
    """What each method compares images with.

    Args:
        vectors: [C, D] float32 of each method.
    """

    def shared(rows: np.ndarray) -> torch.Tensor | None:
        first = first_equals(rows)
        return None if (first == np.arange(len(first))).all() else torch.from_numpy(first).to(device)

    return [
        Classes(method, torch.from_numpy(rows).to(device), shared(rows))
        for method, rows in zip(methods, vectors, strict=True)
    ]


class Scored(NamedTuple):
    """What M methods, S runs in all, say of B images; on the device."""

    ranks: Ranks
    labels: torch.Tensor
    """[B, M, K] int64: the K best classes by the mean over a method's runs."""
    scores: torch.Tensor
    """[B, M, K] float32: theirs."""


def score_batch(inputs: Inputs, methods: Sequence[Classes], score: Score) -> Scored:
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
    scores = [classes.scores(vectors[classes.method.views]) for classes in methods]
    labels, highest = zip(*map(best, scores), strict=True)
    ranks = rank(torch.cat(scores, dim=1), inputs.labels)
    return Scored(ranks, torch.stack(labels, dim=1), torch.stack(highest, dim=1))


def fetch(ranks: Ranks, runs: Sequence[int]) -> list[Outcome]:
    """The outcome of each method; waits until the device has computed it."""
    arrays = [tensor.cpu().numpy() for tensor in ranks]
    ends = np.cumsum(runs)
    return [Outcome(*(array[:, end - count : end] for array in arrays)) for count, end in zip(runs, ends, strict=True)]


def fetch_best(scored: Scored, outcomes: Sequence[Outcome]) -> list[Best]:
    """The best classes of each method.

    Args:
        outcomes: of the same batch, by method.
    """
    labels, scores = scored.labels.cpu().numpy(), scored.scores.cpu().numpy()
    return [
        Best(labels[:, m], scores[:, m], (outcome.predicted == labels[:, m, :1]).mean(axis=1, dtype=np.float32))
        for m, outcome in enumerate(outcomes)
    ]
