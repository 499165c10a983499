"""The linear probe: multinomial logistic regression with L2, as in CLIP (arXiv 2103.00020, appendix A.3).

L-BFGS with at most 1,000 iterations. C, the inverse strength of the regularisation, is swept from 1e-6 to 1e6: seven
values first, then the interval around the best is halved until there are eight steps a decade.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from stages.common.seeding import generator

ITERATIONS = 1000
DECADES = 6
"""C is between 10**-DECADES and 10**DECADES."""
FIRST_STEP, LAST_STEP = 2.0, 0.125
"""Of the sweep, in decades."""
VALIDATION = 0.2
"""Share of each class's train images on which C is chosen."""
VALUES_AT_ONCE = 1 << 22
"""Logits in memory at once."""


class Linear(NamedTuple):
    """A linear classifier of C classes."""

    weights: torch.Tensor
    """[C, D] float32."""
    bias: torch.Tensor
    """[C] float32."""

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        """[B, D] -> [B, C] logits."""
        return images @ self.weights.T + self.bias

    def judged(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
        """The share of N images that are right, and the mean log-likelihood of the true classes."""
        right, likelihood = 0, 0.0
        rows = max(1, VALUES_AT_ONCE // len(self.bias))
        for some, own in zip(images.split(rows), labels.split(rows), strict=True):
            logs = self.scores(some).log_softmax(dim=1)
            right += int((logs.argmax(dim=1) == own).sum())
            likelihood += float(logs.gather(1, own[:, None]).sum(dtype=torch.float64))
        return right / len(labels), likelihood / len(labels)


def fit(features: torch.Tensor, labels: torch.Tensor, classes: int, strength: float) -> Linear:
    """Minimise mean_i -log softmax(W x_i + b)[y_i] + |W|^2 / (2 C N) over W and b: scikit-learn's objective by its C N.

    Args:
        features: [N, D] float32. The optimum is the same wherever their origin is, because b is not regularised; near
            their mean it is found soonest.
        labels: [N] int64.
        strength: C.
    """
    found = torch.zeros(classes, features.shape[1] + 1, dtype=torch.float64, device=features.device)
    decay = 1 / (strength * len(features))

    def objective() -> float:
        weights = found[:, :-1]
        loss, found.grad = _cross_entropy(found, features, labels)
        found.grad[:, :-1] += decay * weights
        return loss + 0.5 * decay * float((weights * weights).sum())

    optimizer = torch.optim.LBFGS([found], max_iter=ITERATIONS, tolerance_grad=1e-9, line_search_fn="strong_wolfe")
    optimizer.step(objective)
    return Linear(found[:, :-1].float(), found[:, -1].float())


def _cross_entropy(
    parameters: torch.Tensor, features: torch.Tensor, labels: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """The mean cross-entropy and its gradient: [C, D + 1] float64, as the parameters."""
    linear = Linear(parameters[:, :-1].float(), parameters[:, -1].float())
    loss, gradient = torch.zeros((), dtype=torch.float64, device=features.device), torch.zeros_like(parameters)
    rows = max(1, VALUES_AT_ONCE // len(parameters))
    for images, own in zip(features.split(rows), labels.split(rows), strict=True):
        logs = linear.scores(images).log_softmax(dim=1)
        loss -= logs.gather(1, own[:, None]).sum(dtype=torch.float64)
        errors = logs.exp_()
        errors[torch.arange(len(own), device=own.device), own] -= 1
        gradient[:, :-1] += errors.T @ images
        gradient[:, -1] += errors.sum(dim=0, dtype=torch.float64)
    return float(loss) / len(labels), gradient / len(labels)


def choose_strength(judge: Callable[[Sequence[float]], Sequence[tuple[float, float]]]) -> float:
    """The best C on the validation images.

    Args:
        judge: for each of several C its accuracy, and what decides between equal ones; more is better. If both are
            equal, the smallest C is taken.
    """
    tried: dict[float, tuple[float, float]] = {}
    step, new = FIRST_STEP, np.arange(-DECADES, DECADES + 1, FIRST_STEP).tolist()
    while True:
        tried |= zip(new, judge([10.0**exponent for exponent in new]), strict=True)
        peak = max(tried, key=lambda exponent: (tried[exponent], -exponent))
        if step <= LAST_STEP:
            return float(10.0**peak)
        step /= 2
        new = [around for around in (peak - step, peak + step) if abs(around) <= DECADES]


def validation_images(labels: np.ndarray, seed: int) -> np.ndarray:
    """Which train images C is chosen on: [N] labels -> [N] bool.

    A fifth of each class, at least one; none of a class that has a single image.
    """
    chosen = np.zeros(len(labels), dtype=bool)
    order = generator(seed, "validation").permutation(len(labels))
    by_class = np.split(order[np.argsort(labels[order], kind="stable")], np.cumsum(np.bincount(labels))[:-1])
    for own in by_class:
        chosen[own[: max(1, int(VALIDATION * len(own))) if len(own) > 1 else 0]] = True
    return chosen
