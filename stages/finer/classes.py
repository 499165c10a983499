"""The classes of a data set with their labels at the three granularities, from `classes.parquet`."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from stages.common import labels


@dataclass(frozen=True)
class ClassLabels:
    """A class: its name, every name that counts as right (the first is `name`), and the labels above."""

    name: str
    fine: list[str]
    coarse: list[str]
    superordinate: str | None

    @property
    def kind(self) -> str | None:
        """The nearest label above, if one is known."""
        above = [label for label in self.coarse if label not in self.fine]
        return above[0] if above else self.superordinate


def read_classes(dataset: str) -> list[ClassLabels]:
    """The classes by label. Where `fine` is null, the name is the only right one.

    Raises:
        UserError: the table is missing or not of its format.
    """
    return of_table(labels.read_classes(dataset).table)


def of_table(table: pa.Table) -> list[ClassLabels]:
    """The classes of `classes.parquet`, by label."""
    return [
        ClassLabels(row["name"], row["fine"] or [row["name"]], row["coarse"] or [], row["superordinate"])
        for row in table.to_pylist()
    ]
