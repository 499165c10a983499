"""The summary as CSV, for programs: a row for each data set, model and method."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from stages.common.artifacts import UNTRAINED
from stages.common.ranking import TOP
from stages.report.published import Comparison
from stages.report.rows import SummaryRow
from stages.report.summary_tables import METRICS, Cell, Grid, accuracies, differences

Value = str | float | None


def csv_text(grid: Grid, comparisons: Sequence[Comparison], reference: str) -> str:
    """A header and the rows. What is not there is empty.

    `rank_*`: 1 for the best and 2 for the second best method of the model on the data set. `average_*`: over the
    `averaged_over` data sets that all methods of the model have. `difference`: of top-1 to `reference`, in points; the
    interval of 95 % is from `low` to `high`. Each paper with a figure of the same cell has two columns; without a
    difference if it scored other images.
    """
    tables = {metric: accuracies(grid, metric).by_place() for metric in METRICS}
    compared = differences(grid, "top1", reference).by_place()
    papers = list(dict.fromkeys(one.reported_in for one in comparisons))
    lines = []
    for row in (row for own in grid.rows.values() for row in own.values()):
        for method in row.methods:
            place, average = (row.model, method, row.dataset), (row.model, method, None)
            line = _figures(row, method)
            line |= {f"rank_{metric}": cells[place].rank or None for metric, cells in tables.items()}
            line |= {f"average_{metric}": _rounded(cells.get(average)) for metric, cells in tables.items()}
            line["averaged_over"] = (tables["top1"].get(average) or Cell()).averaged or None
            line |= {
                "reference": reference,
                "difference": _rounded(compared.get(place)),
                **_interval(row, method, reference),
            }
            line["warning"] = ", ".join([UNTRAINED] * row.untrained + ["demo"] * row.demo)
            own = {one.reported_in: one for one in comparisons if (one.model, one.method, one.dataset) == place}
            for paper in papers:
                one = own.get(paper)
                line[f"published in {paper}"] = one.published if one else None
                line[f"difference to {paper}"] = round(one.difference, 4) if one and one.same_images else None
            lines.append(line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]) if lines else ["model", "dataset", "method"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _figures(row: SummaryRow, method: str) -> dict[str, Value]:
    figures, encoder = row.methods[method], row.encoder
    return {
        "model": row.model,
        "name": encoder.name if encoder else None,
        "pretrained": encoder.pretrained if encoder else None,
        "weights": encoder.weights if encoder else None,
        "dataset": row.dataset,
        "method": method,
        "images": row.images,
        "classes": row.classes,
        "runs": figures.runs,
        "top1": figures.top1,
        "std": figures.std if figures.runs > 1 else None,
        "top5": figures.top5 if row.classes >= TOP else None,
        "mean_per_class": figures.mean_per_class,
    }


def _interval(row: SummaryRow, method: str, reference: str) -> dict[str, Value]:
    own = row.methods[method].difference if row.reference == reference else None
    return {"low": own.low if own else None, "high": own.high if own else None}


def _rounded(cell: Cell | None) -> float | None:
    return round(cell.value, 4) if cell and cell.value is not None else None
