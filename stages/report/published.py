"""Figures that papers report, `published.csv`, beside ours: same data set, same backbone, same method.

The papers report overall accuracy on OpenAI's weights, so top-1 is what compares with them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.common.artifacts import EncoderMeta
from stages.common.errors import UserError
from stages.common.params import Params
from stages.report.rows import SummaryRow

PUBLISHED = Path(__file__).with_name("published.csv")


class Published(BaseModel):
    """A line of `published.csv`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reported_in: str
    method: str
    """Ours by our name. Others, such as "coop (tuned)", stand beside nothing."""
    dataset: str
    """The reader that reads it; or "average", over the paper's data sets."""
    split: str
    """That the paper scored, as the reader calls it; the reader's default."""
    images: int | None
    """In that split."""
    backbone: str
    weights: str
    """open_clip's tag."""
    quantity: Literal["top1", "difference"]
    """"difference": no accuracy, but points between two methods, which compare with nothing here."""
    value: float
    std: float | None
    top5: float | None
    source: str
    note: str


@dataclass(frozen=True)
class Comparison:
    """A figure of ours and a published one, in percent."""

    dataset: str
    model: str
    method: str
    ours: float
    published: float
    std: float | None
    """Of the published one over runs."""
    reported_in: str
    images: int
    expected: int | None
    """Images of ours, and those of the split that the paper scored."""

    @property
    def difference(self) -> float:
        return self.ours - self.published

    @property
    def same_images(self) -> bool:
        return self.expected in (None, self.images)


def read_published(path: Path = PUBLISHED) -> list[Published]:
    """The published figures.

    Raises:
        UserError: a line is not of the form; names it.
    """
    found = []
    with path.open(encoding="utf-8", newline="") as file:
        for number, line in enumerate(csv.DictReader(file), 2):
            try:
                found.append(
                    Published.model_validate({k: v or (None if k in OPTIONAL else v) for k, v in line.items()})
                )
            except ValidationError as error:
                where = ".".join(str(part) for part in error.errors()[0]["loc"])
                raise UserError(f"{path.name}, row {number}: no valid '{where}'; correct it") from None
    return found


OPTIONAL = ("images", "std", "top5")
"""Columns that may be empty."""


def compare(rows: Sequence[SummaryRow], params: Params, published: Iterable[Published]) -> list[Comparison]:
    """Every published figure of a cell that we have, in the order of our cells.

    The reader of a data set's entry says which published data set ours is. A key says nothing.
    """
    figures: dict[tuple[str, str, str, str], list[Published]] = {}
    for one in published:
        if one.quantity == "top1":
            key = one.dataset, one.method, _spelling(one.backbone), one.weights
            figures.setdefault(key, []).append(one)
    tagged = [
        (row.encoder, tag)
        for row in rows
        if row.encoder and (tag := _tag(row.encoder, params.models[row.model].pretrained))
    ]
    found: dict[Comparison, None] = {}  # two tables of a paper may repeat a figure
    for row in rows:
        known = _known_as(row.encoder, tagged)
        entry = params.datasets[row.dataset]
        for method, own in row.methods.items():
            for one in figures.get((entry.reader, method, *known), []) if known else []:
                if entry.split in (None, one.split):
                    comparison = Comparison(
                        row.dataset, row.model, method, own.top1, one.value, one.std, one.reported_in, row.images,
                        one.images,
                    )  # fmt: skip
                    found[comparison] = None
    return list(found)


def _known_as(encoder: EncoderMeta | None, tagged: Sequence[tuple[EncoderMeta, str]]) -> tuple[str, str] | None:
    """Backbone and tag of published weights, or None.

    A checkpoint file says nothing of where it came from. It counts if it is the same model as one with a tag.
    """
    return next(
        ((_spelling(other.name), tag) for other, tag in tagged if encoder and other.same_model(encoder)),
        None,
    )


def _tag(encoder: EncoderMeta, pretrained: str | None) -> str:
    """The tag of the weights; empty for a file or folder. A note shortens paths, so `pretrained` must say the same."""
    if ":" in encoder.name or pretrained is None or encoder.pretrained != pretrained:
        return ""
    return pretrained.casefold().replace("-", "_")


def _spelling(backbone: str) -> str:
    """`ViT-B/32`, `ViT-B-32` and `ViT-B-32-quickgelu` have the same weights."""
    return backbone.replace("/", "-").removesuffix("-quickgelu")
