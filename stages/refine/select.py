"""Description refinement (BiFTA, arXiv 2601.20419): drop sentences that say the same, keep the Top-k."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

EXACT, SIMILAR, RANK = "exact", "similar", "rank"


@dataclass(frozen=True)
class Selection:
    """The outcome for N descriptions of one class."""

    kept: np.ndarray
    """[N] bool."""
    dropped_because: list[str | None]
    """For each: None, "exact", "similar" or "rank"."""
    duplicate_of: np.ndarray
    """[N] int64: the kept description that it repeats, or -1."""


def select(
    texts: Sequence[str],
    embeddings: np.ndarray,
    label_similarity: np.ndarray,
    cosine_threshold: float,
    top_k: int,
    truncated: np.ndarray | None = None,
) -> Selection:
    """Refine the descriptions of one class, in the order given.

    First drops exact duplicates, then each description whose cosine with a kept one is >= `cosine_threshold`. Of the
    others it
    keeps the `top_k` with the highest `label_similarity`; of two equal ones, the earlier one.

    Args:
        texts: N descriptions, white space cleaned.
        embeddings: [N, D] float32 of unit norm.
        label_similarity: [N] float32, cosine to the label prompt.
        truncated: [N] bool, texts that the model sees only in part. Two of them are never called similar, because
        they may
            differ in the part that it does not see.
    """
    count = len(texts)
    dropped_because: list[str | None] = [None] * count
    duplicate_of = np.full(count, -1, dtype=np.int64)
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        original = first.setdefault(text, row)
        if original != row:
            dropped_because[row], duplicate_of[row] = EXACT, original
    kept = duplicate_of < 0
    double = embeddings.astype(np.float64)  # in float32 cores that share the product may decide otherwise
    similar = np.triu(double @ double.T >= cosine_threshold, k=1)
    if truncated is not None:
        similar &= ~np.outer(truncated, truncated)
    for place in np.flatnonzero(similar.any(axis=1)):
        if kept[place]:
            repeats = np.flatnonzero(similar[place] & kept)
            kept[repeats] = False
            duplicate_of[repeats] = place
            for repeat in repeats:
                dropped_because[repeat] = SIMILAR
    # An exact duplicate of a sentence that was itself too similar points at the one that was kept.
    for row in range(count):
        if dropped_because[row] == EXACT and not kept[duplicate_of[row]]:
            duplicate_of[row] = duplicate_of[duplicate_of[row]]
    remaining = np.flatnonzero(kept)
    ranked = remaining[np.argsort(-label_similarity[remaining], kind="stable")]
    for row in ranked[top_k:]:
        kept[row], dropped_because[row] = False, RANK
    return Selection(kept, dropped_because, duplicate_of)
