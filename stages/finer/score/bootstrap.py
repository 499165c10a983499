"""Percentile bootstrap: 95 % intervals of means, by resampling classes and with them their images.

The images of a class are no independent witnesses: they share its name, its attributes and, where only text is shown,
the very answer. So classes are drawn with replacement, each with all its images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVEL = 95.0
"""Percent of the resampled means that lie within the interval."""
DRAWS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval, in the unit of the values."""

    mean: float | None
    """None without values."""
    low: float | None
    """None where fewer than two classes have values: one class says nothing of how classes differ."""
    high: float | None
    values: int
    """How many there are, those missing left out."""
    left_out: int
    classes: int


def bootstrap(values: np.ndarray, classes: np.ndarray, resamples: int, rng: np.random.Generator) -> Estimate:
    """The mean of `values` over images and its interval.

    Args:
        values: [N] float, NaN where missing: left out and counted.
        classes: [N] int, the class of each.
        resamples: how often as many classes as there are are drawn with replacement.
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
    sums, counts = np.bincount(groups, weights=kept), np.bincount(groups)
    low, high = np.percentile(_means(sums, counts, resamples, rng), [50 - LEVEL / 2, 50 + LEVEL / 2])
    return Estimate(mean, float(low), float(high), len(kept), left_out, len(names))


def bootstrap_difference(
    first: np.ndarray, second: np.ndarray, classes: np.ndarray, resamples: int, rng: np.random.Generator
) -> Estimate:
    """The mean of `first` - `second` over the same images; a pair with either side missing is left out and counted.

    Args:
        first: [N] float, NaN where missing.
        second: [N] float, of the same images.
        classes: [N] int.
    """
    return bootstrap(first.astype(np.float64) - second.astype(np.float64), classes, resamples, rng)


def _means(sums: np.ndarray, counts: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """[resamples] float64: means over images of resampled classes, given each class's sum and count of values: [C]."""
    classes = len(sums)
    means = np.empty(resamples)
    rows = max(1, DRAWS_AT_ONCE // classes)
    for start in range(0, resamples, rows):
        part = means[start : start + rows]
        drawn = rng.integers(classes, size=(len(part), classes))
        part[:] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means
