"""The results of a data set and a model, as a Markdown table and as plain text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from stages.common import methods
from stages.common.artifacts import UNTRAINED, EncoderMeta, PredictionsParameters
from stages.common.errors import UserError
from stages.common.metrics import require_metrics
from stages.common.ranking import Tally
from stages.common.tables import Opened

UNTRAINED_NOTE = "UNTRAINED: this model has random weights; the figures say nothing about the methods."
DEMO_NOTE = (
    "Drawings and a small model: these figures show that the pipeline works, they are no evidence about the paper."
)

ATTRSEEK = "attrseek"
"""Begins the names of the methods that `stages/finer` scores, one for each LVLM."""


HEADINGS = ("method", "top-1", "top-5", "views", "texts", "images", "runs")
NUMERIC = {"top-1", "top-5", "images", "runs"}
TOP = 5
NOTHING = "-"


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

    @property
    def best(self) -> float:
        return max(row.top1 for row in self.rows)

    @property
    def notes(self) -> list[str]:
        """The lines that stand beside every table."""
        lines = [UNTRAINED_NOTE] if self.untrained else []
        if self.demo:
            lines.append(DEMO_NOTE)
        if self.missing:
            lines.append(f"Not scored: {', '.join(self.missing)}; `dvc repro` says what each wants.")
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
    raw, rows = _read_metrics(metrics, predictions)
    if beside:
        rows += _read_metrics(*beside)[1]
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
    )


def _read_metrics(metrics: Path, predictions: Opened[PredictionsParameters] | None) -> tuple[dict[str, Any], list[Row]]:
    """The content of `metrics.json`, and its rows.

    Raises:
        UserError: the file is missing, is not JSON of that shape, or was not written with the predictions.
    """
    try:
        raw = json.loads(metrics.read_text(encoding="utf-8"))
        rows = [
            Row(method, float(v["top1"]), float(v["top5"]), float(v["std"]), int(v["images"]), int(v["runs"]))
            for method, v in raw.items()
            if isinstance(v, dict)
        ]
    except FileNotFoundError:
        raise UserError(f"{metrics} is missing; make it with `dvc repro`") from None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{metrics} is not what the score stage writes ({error!r}); run `dvc repro -f`") from None
    if predictions:
        require_metrics(metrics, raw, predictions, "run `dvc repro -f score`")
    return raw, rows


def require_counted(result: Result, tallies: Mapping[str, Tally], predictions: Path) -> None:
    """Refuse metrics that the predictions do not give.

    Args:
        tallies: method -> counts over the predictions, without those of top-5.

    Raises:
        UserError: names the first such method.
    """
    for row in result.rows:
        counted = tallies[row.method].metrics() if row.method in tallies else {}
        for name in ("top1", "std", "images", "runs"):
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
    rows = [_cells(result, row, top1) for row, top1 in zip(result.rows, bold, strict=True)]
    sides = ["right" if heading in NUMERIC else "left" for heading in HEADINGS]
    lines += ["", tabulate(rows, HEADINGS, "github", disable_numparse=True, colalign=sides)]
    lines += ["", "Top-1 and top-5 in percent; ± is the standard deviation of top-1 over runs."]
    for note in notes:
        lines += ["", note]
    return "\n".join(lines) + "\n"


def plain(result: Result) -> str:
    """The table as aligned text, at most 100 columns with the usual names; `*` marks the best top-1."""
    digits = max(len(f"{row.top1:.2f}") for row in result.rows)
    rows = [_cells(result, row, _top1(row, digits) + ("*" if row.top1 == result.best else "")) for row in result.rows]
    # Top-1 is aligned at its point, which a deviation follows in some rows only.
    sides = ["right" if heading in NUMERIC and heading != "top-1" else "left" for heading in HEADINGS]
    # The headings are a row, because tabulate makes columns wider for real ones.
    text = tabulate([HEADINGS, *rows], (), "plain", disable_numparse=True, colalign=sides, preserve_whitespace=True)
    return "\n".join([result.title, *result.notes, *(line.rstrip() for line in text.splitlines())])


def method_rows(result: Result) -> list[dict[str, str | float]]:
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
            "top5": row.top5,
            **note,
        }
        for row in result.rows
    ]


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


def _cells(result: Result, row: Row, top1: str) -> tuple[str, ...]:
    """The cells of a row; top-5 is a dash where there are fewer than five classes, so that every answer is in it."""
    top5 = NOTHING if result.classes is not None and result.classes < TOP else f"{row.top5:.2f}"
    return (row.method, top1, top5, row.views, row.texts, str(row.images), str(row.runs))
