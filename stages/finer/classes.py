"""The classes of a data set with their labels at the three granularities, from `classes.parquet`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stages.common import paths
from stages.common.names import spelling
from stages.common.tables import read_table

_QUALIFIER = re.compile(r"\s*\([^)]*\)")


@dataclass(frozen=True)
class ClassLabels:
    """A class: its name, every name by which it is right (the first is `name`), and what it is a kind of."""

    name: str
    fine: list[str]
    coarse: list[str]
    superordinate: str | None

    @property
    def kind(self) -> str | None:
        """The nearest label above, where one is known."""
        above = [label for label in self.coarse if label not in self.fine]
        return above[0] if above else self.superordinate


def read_classes(dataset: str) -> list[ClassLabels]:
    """The classes by label; a table that was written before `fine` was a column knows the names alone.

    Raises:
        UserError: the table is missing or not of its format.
    """
    table, _ = read_table(paths.classes(dataset), "classes")
    return [
        ClassLabels(row["name"], row.get("fine") or [row["name"]], row.get("coarse") or [], row.get("superordinate"))
        for row in table.to_pylist()
    ]


def fine_labels(found: ClassLabels) -> list[str]:
    """The labels by which a class is right, without those that only add a qualifier to another.

    Of "Common Eider (Adult male)" and "Common Eider" the published files have the latter.
    """
    forms = {spelling(form) for form in found.fine}
    longer = {form for form in found.fine if (bare := _QUALIFIER.sub("", form)) != form and spelling(bare) in forms}
    return [form for form in found.fine if form not in longer]
