"""What a report says in figures, `data/summary/rows/<dataset>-<model>.json`: the summary puts these together."""

from __future__ import annotations

from pathlib import Path

from stages.common import paths
from stages.common.artifacts import EncoderMeta, Record, SourceFile
from stages.common.record_files import read_record, write_record
from stages.common.tables import remake


class Difference(Record):
    """How much more than the reference a method gets right: points of top-1, with its 95 % interval."""

    points: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether there may be no difference at all: 0 is in the interval."""
        return self.low <= 0 <= self.high


class Figures(Record):
    """A method's figures, in percent. Those of accuracy are the mean over runs."""

    top1: float
    top5: float
    mean_per_class: float
    std: float
    """Of top1 over runs."""
    runs: int
    difference: Difference | None = None
    """None for the reference itself, and without one."""


class SummaryRow(Record):
    """Everything of one data set and model."""

    dataset: str
    model: str
    encoder: EncoderMeta | None
    """None if the predictions are missing."""
    demo: bool
    """Drawings, or a model that was trained for the demo."""
    untrained: bool
    labelled: bool
    """Without labels there are no figures."""
    images: int
    classes: int
    seed: int | None
    """None in predictions of a version that did not note it."""
    scoring: str
    """Version of the scoring; different versions may give different figures. Empty where it is not known."""
    reference: str | None
    """The method that differences are to."""
    sources: list[SourceFile]
    """The files of descriptions that the texts were made of."""
    methods: dict[str, Figures]


def write_row(row: SummaryRow) -> None:
    """Write a row for the summary."""
    write_record(paths.summary_row(row.dataset, row.model), row)


def read_row(path: Path) -> SummaryRow:
    """The row in a file.

    Raises:
        UserError: damaged, or of another kind.
    """
    return read_record(path, SummaryRow, remake(path))
