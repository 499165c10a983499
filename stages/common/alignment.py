"""Weighted cross-alignment (WCA, arXiv 2406.02915; BiFTA, arXiv 2601.20419), factorised.

score(x, y) = sum_ij w_i v_j cos(I_i, T_j) = <sum_i w_i I_i, sum_j v_j T_j>: an image costs one vector and a class
costs one vector, whatever the number of views and descriptions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from stages.common.seeding import generator


def normalized(vectors: np.ndarray) -> np.ndarray:
    """[N, D] -> the same with rows of unit norm."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def softmax_by_group(values: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """Softmax of [N] values within each of `count` groups; `groups` has [N] numbers 0..count-1. float64."""
    values = values.astype(np.float64)
    highest = np.full(count, -np.inf)
    np.maximum.at(highest, groups, values)
    powers = np.exp(values - highest[groups])
    return powers / np.bincount(groups, weights=powers, minlength=count)[groups]


def class_vectors(embeddings: np.ndarray, weights: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """sum_j v_j T_j of each class: [N, D] embeddings with [N] weights and labels -> [C, D].

    Every class must have a text.
    """
    counts = np.bincount(labels, minlength=classes)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    return np.stack([weights[own] @ embeddings[own] for own in by_class])


def text_weights(label_similarity: np.ndarray, labels: np.ndarray, classes: int, text_scale: float) -> np.ndarray:
    """v = softmax(exp(text_scale) * cos(T_j, label prompt)) within each class (WCA, equation 6): [N] float64."""
    return softmax_by_group(np.exp(text_scale) * label_similarity, labels, classes)


def view_weights(similarity: np.ndarray, image_scale: float) -> np.ndarray:
    """w = softmax(exp(image_scale) * cos(I_i, whole image)) over P views (WCA, equation 5): [P] -> [P] float64."""
    return softmax_by_group(np.exp(image_scale) * similarity, np.zeros(len(similarity), dtype=np.int64), 1)


def draw_places(seed: int, image_ids: Sequence[str], runs: int, views: int) -> np.ndarray:
    """Uniform numbers that choose each run's views: [B, runs, views] float64 in [0, 1), seeded by (seed, image_id).

    The same numbers serve every pool of an image, so that methods are compared on paired draws.
    """
    places = np.empty((len(image_ids), runs, views))
    for image_id, own in zip(image_ids, places, strict=True):
        generator(seed, "views", image_id).random(out=own)
    return places


def pool_weights(
    pool: torch.Tensor, similarity: torch.Tensor, image_scale: float, places: torch.Tensor | None
) -> torch.Tensor:
    """Weights of an image's views in each run: w = softmax(exp(image_scale) * cos(I_i, whole image)) over its draw.

    A view that is drawn m times in a run counts m times.

    Args:
        pool: [B, P] bool, which rows belong to the pool; at least one an image.
        similarity: [B, P] float32, cosine to the whole image.
        places: [B, R, V] float64 in [0, 1): the draws of each run; None: one run with every view of the pool once.

    Returns:
        [B, R, P] float32 that sum to 1 over the last dimension.
    """
    logits = (np.exp(image_scale) * similarity.double()).masked_fill(~pool, -torch.inf)
    powers = torch.exp(logits - logits.amax(dim=1, keepdim=True))
    if places is None:
        drawn = powers[:, None]
    else:
        sizes = pool.sum(dim=1)
        # Rows of the pool first, in order: the n-th view of the pool is row order[n].
        order = torch.argsort((~pool).to(torch.uint8), dim=1, stable=True)
        nth = (places * sizes[:, None, None]).long().clamp(max=pool.shape[1] - 1)
        rows = torch.gather(order[:, None].expand(-1, nth.shape[1], -1), 2, nth)
        values = torch.gather(powers[:, None].expand(-1, nth.shape[1], -1), 2, rows)
        drawn = torch.zeros(*nth.shape[:2], pool.shape[1], dtype=torch.float64, device=pool.device)
        drawn.scatter_add_(2, rows, values)
    return (drawn / drawn.sum(dim=2, keepdim=True)).float()


def image_vectors(weights: torch.Tensor, views: torch.Tensor, normalize: bool) -> torch.Tensor:
    """sum_i w_i I_i for every run: [B, R, P] weights, [B, P, D] views -> [B, R, D] float32."""
    vectors = torch.bmm(weights, views)
    return torch.nn.functional.normalize(vectors, dim=-1) if normalize else vectors
