"""Percentile bootstrap: 95 % intervals of means, by resampling classes and with them their images.

The images of a class are not independent: they share its name, its attributes and, in questions without an image, the
answer itself. So classes are drawn with replacement, each with all its images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

LEVEL = 0.95
"""Share of the resampled means that lie within the interval."""
DRAWS_AT_ONCE = 1 << 22
"""Classes drawn at once, over all resamples: bounds the memory."""


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval, in the unit of the values."""

    mean: float | None
    """None without values."""
    low: float | None
    """None where fewer than two classes have values, because one class does not show how classes differ."""
    high: float | None
    values: int
    """How many values there are, without the missing ones."""
    left_out: int
    classes: int


def bootstrap(values: np.ndarray, classes: np.ndarray, resamples: int, rng: np.random.Generator) -> Estimate:
    """The mean of `values` over images and its interval.

    Args:
        values: [N] float, NaN where missing: left out and counted.
        classes: [N] int, the class of each.
        resamples: how often C classes are drawn with replacement, C being the number of classes with values.
    """
    there = ~np.isnan(values)
    kept = values[there].astype(np.float64)
    names, groups = np.unique(classes[there], return_inverse=True)
    left_out = int((~there).sum())
    if not len(kept):
        return Estimate(None, None, None, 0, left_out, 0)
    mean = float(kept.mean())
    if len(names) < 2:
        return Estimate(mean, None, None, len(kept), left_out, len(names))
    low, high = stats.bootstrap(
        (np.bincount(groups, weights=kept), np.bincount(groups)),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        n_resamples=resamples,
        batch=max(1, DRAWS_AT_ONCE // len(names)),
        vectorized=True,
        paired=True,  # a class is drawn with its sum and its count
        confidence_level=LEVEL,
        method="percentile",
        rng=rng,
    ).confidence_interval
    return Estimate(mean, float(low), float(high), len(kept), left_out, len(names))


def bootstrap_difference(
    first: np.ndarray, second: np.ndarray, classes: np.ndarray, resamples: int, rng: np.random.Generator
) -> Estimate:
    """The mean of `first` - `second` over the same images. A pair with a missing side is left out and counted.

    Args:
        first: [N] float, NaN where missing.
        second: [N] float, of the same images.
        classes: [N] int.
    """
    return bootstrap(first.astype(np.float64) - second.astype(np.float64), classes, resamples, rng)
