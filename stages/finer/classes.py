"""The classes of a data set with their labels at three granularities, from `classes.parquet`."""

from __future__ import annotations

from dataclasses import dataclass

from stages.common import paths
from stages.common.tables import read_table


@dataclass(frozen=True)
class FinerClass:
    """A class; its label is its place in the list."""

    name: str
    superordinate: str | None
    coarse: list[str]
    """May be empty."""
    fine: list[str]
    """Every name by which it is right, the first being `name`."""


def read_classes(dataset: str) -> list[FinerClass]:
    """The classes in order of their labels. In a table without the column `fine`, an older one, each has its name alone.

    Raises:
        UserError: as `read_table`.
    """
    table, _ = read_table(paths.classes(dataset), "classes")
    return [
        FinerClass(row["name"], row["superordinate"], row["coarse"] or [], row.get("fine") or [row["name"]])
        for row in table.sort_by("label").to_pylist()
    ]
