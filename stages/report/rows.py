"""What a report says in figures, `data/summary/rows/<dataset>-<model>.json`: the summary puts these together."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from stages.common import paths
from stages.common.artifacts import EncoderMeta, Record, SourceFile
from stages.common.digests import DIGEST, is_damaged, signed
from stages.common.errors import UserError
from stages.common.jsons import read_json
from stages.common.tables import remake, write_json


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


Source = SourceFile
"""A file of descriptions that the texts were made of."""


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
    sources: list[Source]
    methods: dict[str, Figures]


def write_row(row: SummaryRow) -> None:
    """Write a row for the summary."""
    write_json(paths.summary_row(row.dataset, row.model), signed(row.model_dump(mode="json")))


def read_row(path: Path) -> SummaryRow:
    """The row in a file.

    Raises:
        UserError: damaged, or of another kind.
    """
    content = read_json(path, remake(path))
    if not isinstance(content, dict) or is_damaged(content):
        raise UserError(f"{path} is damaged, or another program has changed it; {remake(path)}")
    try:
        return SummaryRow.model_validate({key: value for key, value in content.items() if key != DIGEST})
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise UserError(f"{path} has no valid '{where}'; {remake(path)}") from None
