"""Training both classifiers on one kind of vector, and counting what they get right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from stages.common.overlap import in_order
from stages.common.ranking import Outcome, Tally
from stages.common.ranks import rank
from stages.common.supervised import NEIGHBOURS
from stages.supervised.knn import knn_scores
from stages.supervised.linear import VALUES_AT_ONCE, choose_strength, fit, validation_images

COSINES_AT_ONCE = 1 << 24
"""Cosines in memory at once, for each thread."""


@dataclass(frozen=True)
class Learner:
    """Trains both classifiers on one kind of vector and counts what they get right on the others."""

    train: np.ndarray
    """[N, D] float32 of unit norm."""
    labels: np.ndarray
    """[N] int64."""
    images: np.ndarray
    """[M, D] float32 of unit norm, of the images that are classified."""
    truth: np.ndarray
    """[M] int64."""
    classes: int
    device: torch.device

    def knn(self) -> dict[str, int | float]:
        """The figures of the nearest neighbours."""
        train, labels = self._put(self.train), self._put(self.labels)
        return self._count(
            lambda own: knn_scores(own, train, labels, self.classes, NEIGHBOURS),
            self.images,
            max(len(train), self.classes),
            COSINES_AT_ONCE,
        )

    def linear(self, seed: int) -> tuple[dict[str, int | float], float] | None:
        """The figures of the linear probe, and its C; None without images to choose C on."""
        validation = validation_images(self.labels, seed)
        if not validation.any():
            return None
        # Validation images last, so that both parts are pieces of one array instead of copies.
        order, first = np.argsort(validation, kind="stable"), len(validation) - int(validation.sum())
        center = self.train.mean(axis=0, dtype=np.float64).astype(np.float32)
        centered = self.train[order]
        centered -= center
        train, labels = self._put(centered), self._put(self.labels[order])

        def judged(strength: float) -> tuple[float, float]:
            return fit(train[:first], labels[:first], self.classes, strength).judged(train[first:], labels[first:])

        strength = choose_strength(lambda several: list(in_order(judged, several, self._threads)))
        (linear,) = in_order(lambda c: fit(train, labels, self.classes, c), [strength], 1)
        return self._count(linear.scores, self.images - center, self.classes, VALUES_AT_ONCE), strength

    def _count(
        self, scores_of: Callable[[torch.Tensor], torch.Tensor], images: np.ndarray, width: int, values: int
    ) -> dict[str, int | float]:
        """The figures of a classifier, a batch of images at a time; a batch has `values` values, `width` an image."""
        rows, tally = max(1, values // width), Tally(1, self.classes)
        spans = [slice(start, start + rows) for start in range(0, len(images), rows)]

        def outcome(span: slice) -> Outcome:
            scores, truth = scores_of(self._put(images[span])), self._put(self.truth[span])
            predicted, score, margin, in_top = rank(scores[:, None], truth)
            # Where fewer than five classes have a score, the others are not among the five best.
            in_top &= scores.gather(1, truth[:, None]).isfinite()
            return Outcome(*(each.cpu().numpy() for each in (predicted, score, margin, in_top)))

        for span, found in zip(spans, in_order(outcome, spans, self._threads), strict=True):
            tally.add(found, self.truth[span])
        return tally.metrics()

    @property
    def _threads(self) -> int:
        return torch.get_num_threads() if self.device.type == "cpu" else 1

    def _put(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)
