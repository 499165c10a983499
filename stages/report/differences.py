"""How much more than a reference method the others get right, and whether that is more than noise."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np

from stages.report.rows import Difference

Z = NormalDist().inv_cdf(0.975)
"""Of a 95 % interval: 1.96."""


def difference(right: np.ndarray, reference: np.ndarray) -> Difference:
    """The difference of top-1 in points, with its 95 % interval: paired, over images.

    With d_n the difference of an image, the interval is m ± Z sqrt((q - m²) / (N + 2)) with m = Σ d_n / (N + 2) and
    q = (Σ d_n² + 1) / (N + 2), cut at ±100 points. This is the interval of Agresti and Min for matched proportions
    (Statistics in Medicine 24, 2005), for shares of runs. It counts two more images, one without a difference and one
    that is half better and half worse. With many images it is the usual m ± Z s / sqrt(N). With few it is wider, so
    that two images that happen to agree prove nothing.

    Args:
        right: [N] float64, the share of each image's runs that are right.
        reference: [N] float64, that of the reference method.
    """
    apart = right - reference
    count = len(apart) + 2
    middle = apart.sum() / count
    half = Z * np.sqrt(((np.square(apart).sum() + 1) / count - middle**2) / count)
    low, high = np.clip([middle - half, middle + half], -1, 1)
    points, low, high = (round(100 * float(share), 4) for share in (apart.mean(), low, high))
    return Difference(points=points, low=low, high=high)


def differences(right: Mapping[str, np.ndarray], reference: str) -> dict[str, Difference]:
    """Method -> its difference to the reference, without the reference itself; empty if that was not scored.

    Args:
        right: method -> [N] float64, the share of an image's runs that are right.
    """
    if reference not in right:
        return {}
    return {method: difference(own, right[reference]) for method, own in right.items() if method != reference}
