"""What a report leaves for the summary: its figures, and what made them."""

from __future__ import annotations

from stages.common.artifacts import Metadata, PredictionsParameters
from stages.common.labels import Labelled
from stages.report.rows import Figures, SummaryRow, write_row
from stages.report.table import Named, Result

DEMO_MODEL = "local-dir:stages/demo/model"
"""Its figures are no evidence about the papers, whatever the images are."""


def write_figures(
    result: Named, predictions: Metadata[PredictionsParameters], images: Labelled, classes: int
) -> SummaryRow:
    """Write `data/summary/rows/<dataset>-<model>.json`; images without labels have no figures.

    Args:
        result: what the tables say.
        classes: how many there are.
    """
    made_with, encoder = predictions.parameters, predictions.encoder().shareable()
    figures = result if isinstance(result, Result) else None
    row = SummaryRow(
        dataset=result.dataset,
        model=result.model,
        encoder=encoder,
        demo=images.meta.parameters.reader == "demo" or encoder.name == DEMO_MODEL,
        untrained=result.untrained,
        labelled=figures is not None,
        images=len(images.image_ids),
        classes=classes,
        seed=made_with.seed,
        scoring=made_with.scoring,
        reference=figures.reference if figures and figures.compared else None,
        sources=made_with.files,
        methods=_methods(figures) if figures else {},
    )
    write_row(row)
    return row


def _methods(result: Result) -> dict[str, Figures]:
    found = {}
    for row in result.rows:
        assert row.mean_per_class is not None  # else it would not be the one counted
        found[row.method] = Figures(
            top1=row.top1,
            top5=row.top5,
            mean_per_class=row.mean_per_class,
            std=row.std,
            runs=row.runs,
            difference=result.differences.get(row.method),
        )
    return found
