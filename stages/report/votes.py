"""What the methods answered, image by image: the answer given in most runs, and which classes get confused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import polars as pl

from stages.common.labels import Labelled
from stages.common.methods import FULL, chosen
from stages.common.names import told_apart
from stages.common.predictions import Answers
from stages.common.ranking import Tally

T = TypeVar("T")

READABLE = 40
"""Classes that a confusion matrix can show; of more, only the `SHOWN` most confused are."""
SHOWN = 30
OTHER = "(other classes)"


@dataclass(frozen=True)
class Votes:
    """What the methods answered about all images, counted."""

    majority: dict[str, np.ndarray]
    """Method -> [N] int64, the label predicted in most runs, of several the smallest."""
    tallies: dict[str, Tally]
    """Method -> correct predictions by run and by class."""
    right: dict[str, np.ndarray]
    """Method -> [N] float64, the share of an image's runs that are right."""

    def of(self, methods: Sequence[str], images: Labelled) -> pl.DataFrame:
        """One row for each method and image: `method`, `image_id`, `label`, `predicted` by most runs."""
        frames = [
            pl.DataFrame({"image_id": images.image_ids, "label": images.labels, "predicted": self.majority[method]})
            .select(pl.lit(method).alias("method"), "image_id", "label", "predicted")
            .sort("label", "image_id")
            for method in sorted(methods)
            if method in self.majority
        ]
        schema = {"method": pl.String, "image_id": pl.String, "label": pl.Int32, "predicted": pl.Int64}
        return pl.concat(frames) if frames else pl.DataFrame(schema=schema)


def count_votes(parts: Iterable[Answers], labels: np.ndarray, classes: int) -> Votes:
    """Count the answers about all images.

    Args:
        labels: [N] of the images.
        classes: how many there are.
    """
    majorities: dict[str, list[np.ndarray]] = {}
    shares: dict[str, list[np.ndarray]] = {}
    tallies: dict[str, Tally] = {}
    for part in parts:
        for method, predicted in part.predicted.items():
            right = predicted == labels[part.span, None]
            tallies.setdefault(method, Tally(predicted.shape[1], classes)).count(right, labels[part.span])
            majorities.setdefault(method, []).append(majority(predicted))
            shares.setdefault(method, []).append(right.mean(axis=1))
    joined = [{method: np.concatenate(own) for method, own in found.items()} for found in (majorities, shares)]
    return Votes(joined[0], tallies, joined[1])


def majority(predicted: np.ndarray) -> np.ndarray:
    """The label predicted in most of R runs, of several the smallest: [B, R] -> [B] int64."""
    ordered = np.sort(predicted, axis=1)
    runs = np.arange(ordered.shape[1])
    # Where each label of an image begins and ends in its sorted row.
    first = np.ones(ordered.shape, dtype=bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    begins = np.maximum.accumulate(np.where(first, runs, 0), axis=1)
    longest = (runs - begins).argmax(axis=1)  # the first of several is of the smallest label
    return np.take_along_axis(ordered, longest[:, None], axis=1)[:, 0].astype(np.int64)


def confusion_method(methods: Sequence[str]) -> str:
    """The method whose confusions are shown: `bifta`, or the one `chosen` in its place."""
    return chosen(FULL, methods)


def class_names(classes: pl.DataFrame) -> dict[int, str]:
    """Label -> name; classes that share a name get their label added."""
    return dict(enumerate(told_apart(classes.sort("label")["name"].to_list())))


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
    # As the plots of `dvc plots show` sort names: by UTF-16, after `write_page`.
    order = sorted(
        [*shown.values(), *([OTHER] if remark else [])], key=lambda name: name.replace("<", "‹").encode("utf-16-be")
    )
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
