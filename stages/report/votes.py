"""What the methods answered, image by image: the answer given in most runs, and which classes get confused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import polars as pl

from stages.common.methods import FULL

T = TypeVar("T")

READABLE = 40
"""Classes that a confusion matrix can show; of more, only the `SHOWN` most confused are."""
SHOWN = 30
OTHER = "(other classes)"


def majority(predictions: Path, methods: Sequence[str]) -> pl.DataFrame:
    """One row for each method and image: `method`, `image_id`, `label` and `predicted`, the label predicted in most
    runs.

    If several labels are predicted equally often, the smallest is taken. Rows are ordered by method, label and image.
    Reads four columns of the predictions, as a stream.
    """
    return (
        pl.scan_parquet(predictions)
        .select(pl.col("method").cast(pl.String), "image_id", "label", "predicted")
        .filter(pl.col("method").is_in(list(methods)))
        .group_by("method", "image_id", "label", "predicted")
        .len("votes")
        .group_by("method", "image_id", "label")
        .agg(pl.col("predicted").sort_by([-pl.col("votes").cast(pl.Int64), "predicted"]).first())
        .sort("method", "label", "image_id")
        .collect(engine="streaming")
    )


def confusion_method(methods: Sequence[str]) -> str:
    """The method whose confusions are shown: `bifta`, or the last method of the table if it is missing."""
    return FULL if FULL in methods else methods[-1]


def class_names(classes: pl.DataFrame) -> dict[int, str]:
    """Label -> name; classes that share a name get their label added."""
    shared = set(classes.filter(pl.col("name").is_duplicated())["name"])
    return {
        label: f"{name} ({label})" if name in shared else name
        for label, name in classes.sort("label").select("label", "name").iter_rows()
    }


def most_confused(votes: pl.DataFrame, count: int) -> list[int]:
    """The `count` labels of the most confused pairs, ascending.

    Pairs are counted in both directions, equal ones in order of their labels. If too few classes are confused, the
    smallest other labels are added.
    """
    pairs = (
        votes.filter(pl.col("label") != pl.col("predicted"))
        .select(low=pl.min_horizontal("label", "predicted"), high=pl.max_horizontal("label", "predicted"))
        .group_by("low", "high")
        .len("errors")
        .sort("errors", "low", "high", descending=[True, False, False])
    )
    chosen: dict[int, None] = {}
    for low, high in pairs.select("low", "high").iter_rows():
        if len({*chosen, low, high}) <= count:
            chosen.update({low: None, high: None})
        if len(chosen) == count:
            break
    for label in sorted(votes["label"].unique()):
        if len(chosen) < count:
            chosen.setdefault(label)
    return sorted(chosen)


def confusion(votes: pl.DataFrame, names: dict[int, str]) -> tuple[pl.DataFrame, list[str], str]:
    """Confusions of the classes that a plot can show.

    Args:
        votes: `label` and `predicted` of one method, one row an image.
        names: label -> name of all classes.

    Returns:
        `actual` and `predicted` names, one row an image of a class shown, where a prediction that is not shown is
        `OTHER`; the names in order; and a remark on what was left out, or an empty string.
    """
    labels, remark = sorted(names), ""
    if len(labels) > READABLE:
        labels = most_confused(votes, SHOWN)
        remark = f"the {len(labels)} most confused of {len(names)} classes"
    shown = {label: names[label] for label in labels}
    pairs = votes.filter(pl.col("label").is_in(labels)).select(
        actual=pl.col("label").replace_strict(shown, return_dtype=pl.String),
        predicted=pl.col("predicted").replace_strict(shown, default=OTHER, return_dtype=pl.String),
    )
    order = list(shown.values()) + ([OTHER] if remark else [])
    return pairs, order, remark


def choose_images(images: pl.DataFrame, disagreed: set[str], count: int) -> list[str]:
    """`count` image ids spread over the classes, preferring those in `disagreed`; always the same ones.

    Args:
        images: `image_id` and `label`.
    """
    ranked = (
        images.select("image_id", "label", agreed=~pl.col("image_id").is_in(list(disagreed)))
        .sort("label", "agreed", "image_id")
        .with_columns(rank=pl.int_range(pl.len()).over("label"))
    )
    chosen: list[str] = []
    # First choices of all classes come before second ones; among equals, images that methods disagree on come first.
    for _, group in ranked.sort("rank", "agreed", "label").group_by("rank", "agreed", maintain_order=True):
        chosen += evenly(group["image_id"].to_list(), count - len(chosen))
        if len(chosen) == count:
            break
    return chosen


def evenly(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of `items`, evenly spaced, in their order."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]
