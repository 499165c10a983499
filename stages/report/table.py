"""The results of a data set and a model, as a Markdown table and as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate

from stages.common import methods
from stages.common.artifacts import UNTRAINED, EncoderMeta, PredictionsParameters
from stages.common.errors import UserError
from stages.common.metrics import read_metrics
from stages.common.ranking import TOP, Tally
from stages.common.tables import Opened
from stages.report import made_of
from stages.report.rows import Difference

UNTRAINED_NOTE = "UNTRAINED: this model has random weights; the figures say nothing about the methods."
DEMO_NOTE = (
    "Drawings and a small model: these figures show that the pipeline works, they are no evidence about the paper."
)

ATTRSEEK = "attrseek"
"""Begins the names of the methods that `stages/finer` scores, one for each LVLM."""


TEXTUAL = {"method", "views", "texts"}
"""Columns that are aligned at their left."""
NOTHING = "-"
BEYOND_NOISE = "†"
"""Marks a difference whose interval leaves out 0."""


def shown_as(method: str) -> tuple[str, str]:
    """What the table says of a method's views and texts; empty for one of another version."""
    if method.split(" ")[0] == ATTRSEEK:
        return "LVLM's attributes", methods.find(methods.FULL).texts_shown
    found = (one for one in methods.METHODS if one.name == method)
    return next(((one.views, one.texts_shown) for one in found), ("", ""))


def described(model: str, encoder: EncoderMeta | None, *, untrained: bool) -> str:
    """`vit (ViT-B-32, openai)`, with the warning that random weights need."""
    name = encoder.name if encoder else ""
    pretrained = encoder.pretrained if encoder else None
    shown = [name] if name and ":" not in name and name != model else []  # a folder's path says nothing
    shown += [pretrained] if pretrained and pretrained != UNTRAINED else []
    detail = f" ({', '.join(shown)})" if shown else ""
    return f"{model}{detail}" + (f" — {UNTRAINED}" if untrained else "")


@dataclass(frozen=True)
class Row:
    """A method's accuracy in percent; `std` is that of top-1 over runs."""

    method: str
    top1: float
    top5: float
    mean_per_class: float | None
    """None in metrics of an earlier version."""
    std: float
    images: int
    runs: int

    @property
    def views(self) -> str:
        return shown_as(self.method)[0]

    @property
    def texts(self) -> str:
        return shown_as(self.method)[1]

    @property
    def spread(self) -> float:
        """Standard deviation; 0 for a single run."""
        return self.std if self.runs > 1 else 0.0


@dataclass(frozen=True, kw_only=True)
class Named:
    """What a table is of."""

    dataset: str
    model: str
    encoder: EncoderMeta | None
    """What made the views; None if the predictions are missing."""
    untrained: bool
    made_with: PredictionsParameters | None = None
    """Parameters of the predictions; None if they are missing."""

    @property
    def title(self) -> str:
        """`pets with vit (ViT-B-32, openai)`, with the warning that random weights need."""
        return f"{self.dataset} with {described(self.model, self.encoder, untrained=self.untrained)}"


@dataclass(frozen=True, kw_only=True)
class Result(Named):
    """All methods of one data set and model, and the notes that a reader needs."""

    rows: list[Row]
    demo: bool
    missing: list[str]
    """Methods that were asked for and not scored."""
    classes: int | None = None
    """How many there are, where known."""
    reference: str | None = None
    """The method that differences are to; None where none are asked for."""
    differences: Mapping[str, Difference] = field(default_factory=dict)
    """Of the other methods; empty if the reference was not scored."""

    @property
    def best(self) -> float:
        return max(row.top1 for row in self.rows)

    @property
    def compared(self) -> bool:
        """Whether the reference was scored."""
        return self.reference in {row.method for row in self.rows}

    @property
    def counts(self) -> str:
        """`500 images, ± over 20 runs`, as far as the rows agree."""
        images, runs = {row.images for row in self.rows}, {row.runs for row in self.rows if row.runs > 1}
        parts = [f"{one} image{'s' if one != 1 else ''}" for one in images if len(images) == 1]
        parts += [f"± over {one} runs" for one in runs if len(runs) == 1]
        return ", ".join(parts)

    @property
    def notes(self) -> list[str]:
        """The lines that stand beside every table."""
        lines = [UNTRAINED_NOTE] if self.untrained else []
        if self.demo:
            lines.append(DEMO_NOTE)
        if self.missing:
            lines.append(f"Not scored: {', '.join(self.missing)}; `dvc repro` says what each wants.")
        if self.reference and not self.compared:
            lines.append(f"No differences: {self.reference} (report.reference) was not scored.")
        return lines


def read_result(
    dataset: str,
    model: str,
    metrics: Path,
    predictions: Opened[PredictionsParameters] | None,
    *,
    demo: bool,
    beside: tuple[Path, Opened[PredictionsParameters]] | None = None,
    classes: int | None = None,
) -> Result:
    """Read `metrics.json`.

    Args:
        beside: metrics of other methods in the same shape, and their predictions.
        predictions: of these metrics, or None if they are missing: then the model's tag and weights are not named.
        demo: whether the data set is the embedded demo.
        classes: how many the data set has, where known.

    Raises:
        UserError: the file is missing, is not JSON, holds no method, or is not of the predictions.
    """
    raw, rows = read_metrics(metrics, _row, predictions)
    if beside:
        rows += read_metrics(beside[0], _row, beside[1])[1]
    if not rows:
        raise UserError(f"{metrics} holds no method; `dvc repro` says which sources they want")
    encoder = predictions.meta.model if predictions else None
    asked = predictions.meta.parameters.methods if predictions else []
    return Result(
        dataset=dataset,
        model=model,
        rows=rows,
        encoder=encoder,
        untrained=UNTRAINED in (raw.get("weights"), encoder.pretrained if encoder else None),
        demo=demo,
        missing=[method for method in asked if method not in raw],
        classes=classes,
        made_with=predictions.meta.parameters if predictions else None,
    )


def _row(method: str, figures: Mapping[str, Any]) -> Row:
    return Row(
        method,
        float(figures["top1"]),
        float(figures["top5"]),
        float(figures["mean_per_class"]) if "mean_per_class" in figures else None,
        float(figures["std"]),
        int(figures["images"]),
        int(figures["runs"]),
    )


def require_counted(result: Result, tallies: Mapping[str, Tally], predictions: Path) -> None:
    """Refuse metrics that the predictions do not give.

    Args:
        tallies: method -> counts over the predictions, without those of top-5.

    Raises:
        UserError: names the first such method.
    """
    for row in result.rows:
        counted = tallies[row.method].metrics() if row.method in tallies else {}
        for name in ("top1", "mean_per_class", "std", "images", "runs"):
            if counted.get(name) != getattr(row, name):
                raise UserError(
                    f"{predictions} gives {row.method} a {name} of {counted.get(name)}, its metrics say "
                    f"{getattr(row, name)}; run `dvc repro -f score`"
                )


def markdown(result: Result, notes: Sequence[str] = ()) -> str:
    """The table as Markdown, the best top-1 in bold; `notes` are lines to stand under it."""
    lines = [f"# {result.title}", "", identity(result)]
    for note in result.notes:
        lines += ["", f"**{note}**" if note == UNTRAINED_NOTE else note]
    bold = [f"**{_top1(row)}**" if row.top1 == result.best else _top1(row) for row in result.rows]
    rows = [_cells(result, row, top1, _difference(result, row)) for row, top1 in zip(result.rows, bold, strict=True)]
    lines += ["", _github(rows)]
    lines += ["", legend(result)]
    for note in notes:
        lines += ["", note]
    if result.made_with:
        lines += made_of.markdown(result.dataset, result.made_with)
    return "\n".join(lines) + "\n"


def _github(rows: Sequence[Mapping[str, str]]) -> str:
    """A table in Markdown; each row is heading -> cell."""
    sides = ["left" if heading in TEXTUAL else "right" for heading in rows[0]]
    cells = [[*row.values()] for row in rows]
    return tabulate(cells, [*rows[0]], "github", disable_numparse=True, colalign=sides)


def plain(result: Result) -> str:
    """The table as aligned text, at most 100 columns with the usual names; `*` marks the best top-1."""
    digits = max(len(f"{row.top1:.2f}") for row in result.rows)
    rows = [
        _cells(
            result,
            row,
            _top1(row, digits) + ("*" if row.top1 == result.best else ""),
            _difference(result, row, digits=1, unmarked=" "),
        )
        for row in result.rows
    ]
    for row in rows:
        del row["runs"]
        if len({row.images for row in result.rows}) == 1:
            del row["images"]
    # Top-1 is aligned at its point, which a deviation follows in some rows only.
    sides = ["left" if heading in {*TEXTUAL, "top-1"} else "right" for heading in rows[0]]
    # The headings are a row, because tabulate makes columns wider for real ones.
    cells = [[*rows[0]], *([*row.values()] for row in rows)]
    text = tabulate(cells, (), "plain", disable_numparse=True, colalign=sides, preserve_whitespace=True)
    under = [result.counts] if result.counts else []
    if result.differences:
        under.append(
            f"[95 % interval of the difference to {result.reference}, over images; {BEYOND_NOISE} more than noise]"
        )
    lines = [result.title, *result.notes, *(line.rstrip() for line in text.splitlines())]
    return "\n".join([*lines, *under, *made_of.plain(result.made_with)])


def method_rows(result: Result) -> list[dict[str, str | float | None]]:
    """Rows of the bar plot: top-1 with low and high one standard deviation away, percent.

    A row of a model with random weights says so in `note`, which the plot's template writes beside the bar.
    """
    note = {"note": UNTRAINED} if result.untrained else {}
    return [
        {
            "method": row.method,
            "top1": row.top1,
            "low": round(row.top1 - row.spread, 4),
            "high": round(row.top1 + row.spread, 4),
            "mean_per_class": row.mean_per_class,
            "top5": row.top5,
            **note,
        }
        for row in result.rows
    ]


def cells(result: Result) -> list[dict[str, str]]:
    """The rows of the table, heading -> cell, for a page that marks the best itself."""
    return [_cells(result, row, _top1(row), _difference(result, row)) for row in result.rows]


def legend(result: Result) -> str:
    """What the columns are."""
    text = (
        "In percent. ± is the standard deviation of top-1 over runs. Per class is the mean over classes of the share "
        "of a class's images that are right; classes without images do not count."
    )
    if result.differences:
        text += (
            f" The difference to {result.reference} is in points of top-1, with its 95 % interval, paired over images. "
            f"{BEYOND_NOISE} marks one that is more than noise: 0 is not in the interval."
        )
    return text


def is_numeric(heading: str) -> bool:
    """Whether a column is aligned at its right."""
    return heading not in TEXTUAL


def identity(result: Named) -> str:
    """Data set, model, pretrained tag and hash of the weights, in one line."""
    encoder = result.encoder
    parts = [f"Data set `{result.dataset}`", f"model `{encoder.name if encoder else result.model}`"]
    if result.untrained:
        parts.append(f"weights **{UNTRAINED}**")
    elif encoder and encoder.pretrained:
        parts.append(f"pretrained `{encoder.pretrained}`")
    if encoder:
        parts.append(f"weights hash `{encoder.weights}`")
    return ", ".join(parts) + "."


def _top1(row: Row, digits: int = 0) -> str:
    return f"{row.top1:{digits}.2f}" + (f" ± {row.std:.2f}" if row.runs > 1 else "")


def _difference(result: Result, row: Row, digits: int = 2, unmarked: str = "") -> str:
    """`+1.50 [-0.20, +3.20]`, and the mark or what stands in its place."""
    own = result.differences.get(row.method)
    if own is None:
        return NOTHING + unmarked
    points, low, high = (f"{value:+.{digits}f}" for value in (own.points, own.low, own.high))
    return f"{points} [{low}, {high}]{unmarked if own.is_noise else BEYOND_NOISE}"


def _cells(result: Result, row: Row, top1: str, difference: str) -> dict[str, str]:
    """Heading -> cell; top-5 is a dash where there are fewer than five classes, so that every answer is in it."""
    return {
        "method": row.method,
        "top-1": top1,
        **({f"difference to {result.reference}": difference} if result.differences else {}),
        "per class": NOTHING if row.mean_per_class is None else f"{row.mean_per_class:.2f}",
        "top-5": NOTHING if result.classes is not None and result.classes < TOP else f"{row.top5:.2f}",
        "views": row.views,
        "texts": row.texts,
        "images": str(row.images),
        "runs": str(row.runs),
    }
