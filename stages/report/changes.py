"""What refinement changed for each class, and which classes are still confused, as rows of two plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from stages.common.artifacts import UNTRAINED
from stages.common.methods import FULL, UNREFINED
from stages.common.ranking import Tally

SIDE = 20
"""Classes shown at either end, the most improved and the most worsened."""
PAIRS = 20
"""Pairs of classes shown, the most confused."""

Rows = list[dict[str, str | float | int]]


def class_changes(right: dict[str, np.ndarray], labels: np.ndarray, names: dict[int, str], *, untrained: bool) -> Rows:
    """Top-1 of each class under both methods in percent, mean over runs, and the change in points, sorted by it.

    At most the `SIDE` most improved and the `SIDE` most worsened; empty if a method is missing.

    Args:
        right: method -> [N] float64, the share of an image's runs that are right.
        labels: [N] of the images.
    """
    if not {UNREFINED, FULL} <= set(right):
        return []
    top1 = (
        pl.DataFrame({"label": labels, **{method: right[method] for method in (UNREFINED, FULL)}})
        .group_by("label")
        .agg((100 * pl.col(method).mean()).alias(method) for method in (UNREFINED, FULL))
        .with_columns(change=pl.col(FULL) - pl.col(UNREFINED))
        .sort("change", "label", descending=[True, False])
    )
    if len(top1) > 2 * SIDE:
        top1 = pl.concat([top1.head(SIDE), top1.tail(SIDE)])
    return [
        {
            "class": names[row["label"]],
            "change": round(row["change"], 4),
            UNREFINED: round(row[UNREFINED], 4),
            FULL: round(row[FULL], 4),
            **_note(untrained),
        }
        for row in top1.iter_rows(named=True)
    ]


def recalls(tallies: Mapping[str, Tally], names: dict[int, str]) -> pl.DataFrame:
    """One row for each class: `class`, `images` and for each method the recall in percent, mean over runs.

    Classes without images have no recall.

    Args:
        tallies: method -> counts over all images.
        names: label -> name of all classes.
    """
    labels = sorted(names)
    images = next(iter(tallies.values())).of_class
    found: dict[str, Any] = {"class": [names[label] for label in labels], "images": images[labels]}
    for method, tally in tallies.items():
        found[method] = tally.recalls()[labels].round(4)
    return pl.DataFrame(found).fill_nan(None)


def confused_pairs(votes: pl.DataFrame, names: dict[int, str], *, untrained: bool) -> Rows:
    """The pairs actual -> predicted with the most images, and their share of the actual class; at most `PAIRS`.

    Args:
        votes: `label` and `predicted` of one method, one row an image.
    """
    counts = (
        votes.with_columns(images=pl.len().over("label"))
        .filter(pl.col("label") != pl.col("predicted"))
        .group_by("label", "predicted")
        .agg(count=pl.len(), share=100 * pl.len() / pl.col("images").first())
        .sort("count", "share", "label", "predicted", descending=[True, True, False, False])
        .head(PAIRS)
    )
    return [
        {
            "pair": f"{names[label]} → {names[predicted]}",
            "actual": names[label],
            "predicted": names[predicted],
            "count": count,
            "share": round(share, 4),
            **_note(untrained),
        }
        for label, predicted, count, share in counts.iter_rows()
    ]


def _note(untrained: bool) -> dict[str, str | float | int]:
    """What the plots' templates write beside the bars of a model with random weights."""
    return {"note": UNTRAINED} if untrained else {}
