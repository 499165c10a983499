"""From scores to predictions: one rule for every method.

Which class an image is given, by what margin, whether the true one is among the first five, and which five are best by
the mean over runs.
"""

from __future__ import annotations

import torch

from stages.common.ranking import TOP

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


def best(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first TOP classes by the mean over runs, or all where there are fewer; the lower label wins a tie.

    Args:
        scores: [B, R, C] of one method in R runs.

    Returns:
        [B, K] int64 labels and their [B, K] mean scores, best first.
    """
    left = scores.mean(dim=1)
    found = []
    # One after the other, because the indices of `topk` are in no particular order where scores are equal.
    for _ in range(min(TOP, scores.shape[-1])):
        score, label = left.max(dim=-1)
        found.append((label, score))
        left = left.scatter(-1, label[:, None], -torch.inf)
    labels, highest = (torch.stack(parts, dim=1) for parts in zip(*found, strict=True))
    return labels, highest
