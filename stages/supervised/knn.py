"""The weighted k-nearest-neighbour classifier of Wu et al. (arXiv 1805.01978, section 3.4), as in DINO (2104.14294)."""

from __future__ import annotations

import torch

TEMPERATURE = 0.07


def knn_scores(
    images: torch.Tensor, train: torch.Tensor, labels: torch.Tensor, classes: int, neighbours: int
) -> torch.Tensor:
    """The votes of each image's nearest neighbours: class -> sum of exp(cosine / 0.07) over its images among them.

    Exact: every train image is compared.

    Args:
        images: [B, D] of unit norm.
        train: [N, D] of unit norm.
        labels: [N] int64, of `train`.
        neighbours: k; all train images where there are fewer.

    Returns:
        [B, C] float32; -inf for classes without a neighbour, so that they are not among an image's best.
    """
    cosines, nearest = (images @ train.T).topk(min(neighbours, len(train)), dim=1)
    # exp(1 / 0.07) is 1.6e6, far from an overflow.
    votes = torch.zeros(len(images), classes, device=images.device)
    votes.scatter_add_(1, labels[nearest], (cosines / TEMPERATURE).exp())
    return votes.masked_fill(votes == 0, -torch.inf)
