"""Which class an image is given, and whether the true one is among the first: one rule for every method."""

from __future__ import annotations

import torch

TOP = 5

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
