"""The summary's tables in numbers: models and methods against data sets, averages, and differences to a method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from stages.common.methods import METHODS
from stages.report.published import Comparison
from stages.report.rows import SummaryRow
from stages.report.table import described

METRICS = {"top1": "Top-1 accuracy (%)", "mean_per_class": "Mean per-class accuracy (%)"}
"""Metric -> title of its table."""

BEST, SECOND = 1, 2
AVERAGE = "average"
"""Heading of the last column."""
OTHER_IMAGES = "‡"
"""Marks a published figure over other images than ours."""

DIGITS = 2
"""Decimals that are shown; figures that look the same rank the same."""


@dataclass(frozen=True)
class Cell:
    """A figure in percent, or a difference in points. Without a value it is a dash."""

    value: float | None = None
    std: float | None = None
    """Over runs; None for a single run."""
    rank: int = 0
    """BEST or SECOND among the methods of the model on this data set."""
    averaged: int = 0
    """Number of data sets that an average is over."""
    beyond_noise: bool = False
    """The 95 % interval of the difference leaves out zero."""


@dataclass(frozen=True)
class Line:
    """A method's row."""

    method: str
    cells: list[Cell]


@dataclass(frozen=True)
class Block:
    """The rows of one model."""

    model: str
    label: str
    """The model's key, and the name and tag of its weights."""
    lines: list[Line]


@dataclass(frozen=True)
class Table:
    """One table; the last column is the average if there are several data sets."""

    title: str
    datasets: list[str]
    blocks: list[Block]
    signed: bool = False
    """Differences have a sign."""
    remark: str = ""

    @property
    def columns(self) -> list[str]:
        return [*self.datasets, *([AVERAGE] if len(self.datasets) > 1 else [])]

    def lines(self) -> Iterator[Line]:
        return (line for block in self.blocks for line in block.lines)

    def cells(self) -> Iterator[Cell]:
        return (cell for line in self.lines() for cell in line.cells)

    def by_place(self) -> dict[tuple[str, str, str | None], Cell]:
        """(model, method, data set) -> its cell; None in place of a data set is the average."""
        columns = [*self.datasets, None]
        return {
            (block.model, line.method, column): cell
            for block in self.blocks
            for line in block.lines
            for column, cell in zip(columns, line.cells, strict=False)
        }


@dataclass(frozen=True)
class Grid:
    """The rows by model."""

    datasets: list[str]
    """Those of any model."""
    rows: dict[str, dict[str, SummaryRow]]
    """Model -> data set -> row, both in the order of params.yaml."""

    def methods(self, model: str) -> list[str]:
        """Every method that the model has on some data set: in the order of `METHODS`, then as they come."""
        own = {method: None for row in self.rows[model].values() for method in row.methods}
        known = [method.name for method in METHODS]
        return [*(name for name in known if name in own), *(name for name in own if name not in known)]

    def averaged(self, model: str) -> list[str]:
        """The data sets that all methods of the model have."""
        methods = set(self.methods(model))
        return [dataset for dataset, row in self.rows[model].items() if methods <= set(row.methods)]

    def label(self, model: str) -> str:
        own = self.rows[model].values()
        encoder = next((row.encoder for row in own if row.encoder), None)
        return described(model, encoder, untrained=any(row.untrained for row in own))

    def average(self, model: str, method: str, metric: str) -> Cell:
        over = self.averaged(model)
        values = [getattr(self.rows[model][dataset].methods[method], metric) for dataset in over]
        return Cell(fmean(values), averaged=len(over)) if over else Cell()


def make_grid(rows: Sequence[SummaryRow], datasets: Iterable[str]) -> Grid:
    """The rows that have figures.

    Args:
        rows: in the order of the models.
        datasets: keys, in the order of the columns.
    """
    models: dict[str, dict[str, SummaryRow]] = {}
    for row in rows:
        if row.methods:
            models.setdefault(row.model, {})[row.dataset] = row
    return Grid([key for key in datasets if any(key in own for own in models.values())], models)


def accuracies(grid: Grid, metric: str) -> Table:
    """The table of one metric: a row for each model and method, a column for each data set, and the average.

    The average is over the data sets that all methods of the model have, so that the methods compare.
    """
    blocks = []
    for model, own in grid.rows.items():
        lines = []
        for method in grid.methods(model):
            cells = [_cell(own.get(dataset), method, metric) for dataset in grid.datasets]
            if len(grid.datasets) > 1:
                cells.append(grid.average(model, method, metric))
            lines.append(Line(method, cells))
        blocks.append(Block(model, grid.label(model), _ranked(lines)))
    return Table(METRICS[metric], grid.datasets, blocks)


def _cell(row: SummaryRow | None, method: str, metric: str) -> Cell:
    figures = row.methods.get(method) if row else None
    if figures is None:
        return Cell()
    return Cell(getattr(figures, metric), std=figures.std if metric == "top1" and figures.runs > 1 else None)


def _ranked(lines: list[Line]) -> list[Line]:
    """The same, with the best and second best figure of each column marked; equal ones share the mark."""
    columns = []
    for column in zip(*(line.cells for line in lines), strict=True):
        shown = [None if cell.value is None else round(cell.value, DIGITS) for cell in column]
        ranks = sorted({value for value in shown if value is not None}, reverse=True)[:SECOND]
        alone = sum(value is not None for value in shown) < 2
        columns.append(
            [
                replace(cell, rank=ranks.index(value) + 1) if value in ranks and not alone else cell
                for cell, value in zip(column, shown, strict=True)
            ]
        )
    return [Line(line.method, list(cells)) for line, cells in zip(lines, zip(*columns, strict=True), strict=True)]


def differences(grid: Grid, metric: str, reference: str) -> Table:
    """By how many points each method is above the reference, on the same data set with the same model.

    Models without the reference, and the reference itself, have no rows.
    """
    blocks, without = [], []
    for model, own in grid.rows.items():
        methods = grid.methods(model)
        if reference not in methods:
            without.append(model)
            continue
        mean = grid.average(model, reference, metric)
        lines = []
        for method in methods:
            cells = [_difference(own.get(dataset), method, metric, reference) for dataset in grid.datasets]
            if len(grid.datasets) > 1:
                cell = grid.average(model, method, metric)
                cells.append(replace(cell, value=_minus(cell.value, mean.value)))
            lines.append(Line(method, cells))
        blocks.append(Block(model, grid.label(model), [line for line in lines if line.method != reference]))
    title = f"Difference to {reference}, {METRICS[metric].removesuffix(' (%)').lower()} (points)"
    remark = f"Without {reference}: {', '.join(without)}." if without else ""
    return Table(title, grid.datasets, [block for block in blocks if block.lines], signed=True, remark=remark)


def _difference(row: SummaryRow | None, method: str, metric: str, reference: str) -> Cell:
    value = _minus(_cell(row, method, metric).value, _cell(row, reference, metric).value)
    interval = row.methods[method].difference if row and value is not None and row.reference == reference else None
    beyond = metric == "top1" and interval is not None and not interval.is_noise
    return Cell(value, beyond_noise=beyond)


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


@dataclass(frozen=True)
class Summary:
    """All that a summary says, before it becomes text."""

    tables: list[Table]
    comparisons: list[Comparison]
    notes: list[str]
    """Warnings, and what is not in the tables."""
