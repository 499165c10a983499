"""The methods that are compared: which views of an image meet which texts of a class, and how they are shown.

This is the one declaration of a method. Scoring, tables, plots and curves go through `METHODS`, in this order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stages.common.errors import UserError, nearest

WHOLE, ALL, REFINED = "whole image", "all crops", "refined crops"
"""Pools of views: the whole image; the first max_views candidates; those that survive the IoU filter."""

KEPT = "kept"
"""Stands for the rows that description refinement kept, whatever their source."""


SCORING = "1"
"""Version of the scoring. Raise it with every change after which the same texts and views may give other figures: to
the methods, weights, runs, ties or metrics."""


@dataclass(frozen=True)
class Method:
    """A row of the table."""

    name: str
    views: str
    """WHOLE, ALL or REFINED."""
    texts: str
    """Source of the texts, or KEPT."""
    combine: str
    """How a class's texts become one vector: "mean", "normalized mean", "descriptor mean" or "weighted"."""
    texts_shown: str
    """What a table calls the texts."""
    paper: str
    """arXiv number."""
    style: tuple[str, str]
    """Colour and dashes of its line in the plot of a curve: dashed greys for the whole image, full lines for crops."""


_CUPL, _UNION = "CuPL sentences", "refined union"

METHODS: tuple[Method, ...] = (
    Method("clip", WHOLE, "label", "mean", "label prompt", "2103.00020", ("#b3b9c4", ":")),
    Method("clip-e", WHOLE, "template", "normalized mean", "templates", "2103.00020", ("#9aa2b0", "--")),
    Method("clip-d", WHOLE, "clip-d", "descriptor mean", "descriptors", "2210.07183", ("#7d8696", "-.")),
    Method("waffle", WHOLE, "waffle", "descriptor mean", "random words", "2306.07282", ("#c9b49a", "-.")),
    Method("cupl", WHOLE, "cupl", "normalized mean", _CUPL, "2209.03320", ("#5c6675", "--")),
    Method("wca", ALL, "cupl", "weighted", _CUPL, "2406.02915", ("#e0a030", "-")),
    Method("bifta-views", REFINED, "cupl", "weighted", _CUPL, "2601.20419", ("#4c8fc4", "-")),
    Method("bifta-texts", ALL, KEPT, "weighted", _UNION, "2601.20419", ("#a06fb0", "-")),
    Method("bifta", REFINED, KEPT, "weighted", _UNION, "2601.20419", ("#1f7a6d", "-")),
)

RANDOM = "waffle"
"""The method whose texts say nothing of a class but its name: a baseline."""

PLAIN, UNREFINED, FULL = "clip", "wca", "bifta"
"""What reports compare: the label prompt alone; views and sentences without refinement; and with it."""


def find(name: str) -> Method:
    """The method of this name."""
    return next(method for method in METHODS if method.name == name)


def chosen(wanted: str, scored: Sequence[str]) -> str:
    """The method that is shown where one is: the one wanted, or the last of those that were scored.

    Random words are the last choice: without descriptions, templates and not `waffle` name the classes.
    """
    if wanted in scored:
        return wanted
    return next((name for name in reversed(scored) if name != RANDOM), scored[-1])


def require_method(key: str, name: str) -> None:
    """Refuse a name that is no method.

    Args:
        key: of params.yaml, for the message.

    Raises:
        UserError: names the methods that there are.
    """
    known = [method.name for method in METHODS]
    if name not in known:
        raise UserError(f"{key} '{name}' is no method{nearest(name, known)}; there are: {', '.join(known)}")
