"""What a data set and a model came to, as a Markdown table and as plain text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.common.errors import UserError
from stages.common.tables import UNTRAINED, Meta

UNTRAINED_NOTE = "UNTRAINED: this model has random weights; the figures say nothing about the methods."
DEMO_NOTE = (
    "Drawings and a small model: these figures show that the pipeline works, they are no evidence about the paper."
)

WHOLE, ALL_CROPS, REFINED_CROPS = "whole image", "all crops", "refined crops"
CUPL, UNION = "CuPL sentences", "refined union"

ATTRSEEK = "attrseek"
"""Begins the names of the methods that `stages/finer` scores, one an LVLM."""

INGREDIENTS: dict[str, tuple[str, str]] = {
    "clip": (WHOLE, "label prompt"),
    "clip-e": (WHOLE, "templates"),
    "clip-d": (WHOLE, "descriptors"),
    "waffle": (WHOLE, "random words"),
    "cupl": (WHOLE, CUPL),
    "wca": (ALL_CROPS, CUPL),
    "bifta-views": (REFINED_CROPS, CUPL),
    "bifta-texts": (ALL_CROPS, UNION),
    "bifta": (REFINED_CROPS, UNION),
    ATTRSEEK: ("LVLM's attributes", UNION),
}
"""Which views and which texts a method compares."""

HEADINGS = ("method", "top-1", "top-5", "views", "texts", "images", "runs")
NUMERIC = {"top-1", "top-5", "images", "runs"}
TOP = 5
NOTHING = "-"


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
        return INGREDIENTS.get(self.method.split(" ")[0], ("", ""))[0]

    @property
    def texts(self) -> str:
        return INGREDIENTS.get(self.method.split(" ")[0], ("", ""))[1]

    @property
    def spread(self) -> float:
        """Standard deviation where there is one: a single run has none."""
        return self.std if self.runs > 1 else 0.0


@dataclass(frozen=True)
class Result:
    """All methods of one data set and model, and what a reader must know before believing them."""

    dataset: str
    model: str
    rows: list[Row]
    encoder: Meta
    """What made the views: name, pretrained, weights; empty where the predictions are not at hand."""
    untrained: bool
    demo: bool
    missing: list[str]
    """Methods that were asked for and not scored."""
    classes: int | None = None
    """How many there are, where known."""

    @property
    def best(self) -> float:
        return max(row.top1 for row in self.rows)

    @property
    def title(self) -> str:
        """`pets with vit (ViT-B-32, openai)`, with the warning that random weights need."""
        name, pretrained = self.encoder.get("name"), self.encoder.get("pretrained")
        told = [name] if name and ":" not in name and name != self.model else []  # a folder's path tells nothing
        told += [pretrained] if pretrained and pretrained != UNTRAINED else []
        detail = f" ({', '.join(told)})" if told else ""
        return f"{self.dataset} with {self.model}{detail}" + (f" — {UNTRAINED}" if self.untrained else "")

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
    predictions: Meta,
    *,
    demo: bool,
    beside: Path | None = None,
    classes: int | None = None,
) -> Result:
    """Read `metrics.json`.

    Args:
        beside: metrics of further methods of the same shape, which need not be there.
        predictions: the `bifta` object of the predictions, or empty where they are not at hand: then the model's tag
            and weights are not named.
        demo: whether the data set is the embedded demo.
        classes: how many the data set has, where known.

    Raises:
        UserError: the file is missing, is no JSON or holds no method.
    """
    try:
        raw = json.loads(metrics.read_text(encoding="utf-8"))
        if beside and beside.exists():
            raw |= json.loads(beside.read_text(encoding="utf-8"))
        rows = [
            Row(method, float(v["top1"]), float(v["top5"]), float(v["std"]), int(v["images"]), int(v["runs"]))
            for method, v in raw.items()
            if isinstance(v, dict)
        ]
    except FileNotFoundError:
        raise UserError(f"{metrics} is missing; make it with `dvc repro`") from None
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{metrics} is not what the score stage writes ({error!r}); run `dvc repro -f`") from None
    if not rows:
        raise UserError(f"{metrics} holds no method; `dvc repro` says which sources they want")
    encoder = predictions.get("model", {})
    asked = predictions.get("parameters", {}).get("methods", [])
    return Result(
        dataset=dataset,
        model=model,
        rows=rows,
        encoder=encoder,
        untrained=UNTRAINED in (raw.get("weights"), encoder.get("pretrained"), encoder.get("weights")),
        demo=demo,
        missing=[method for method in asked if method not in raw],
        classes=classes,
    )


def markdown(result: Result, notes: Sequence[str] = ()) -> str:
    """The table as Markdown, the best top-1 in bold; `notes` are lines to stand under it."""
    lines = [f"# {result.title}", "", _identity(result)]
    for note in result.notes:
        lines += ["", f"**{note}**" if note == UNTRAINED_NOTE else note]
    lines += ["", _markdown_row(HEADINGS)]
    lines.append("|" + "|".join("---:" if heading in NUMERIC else "---" for heading in HEADINGS) + "|")
    for row in result.rows:
        top1 = _top1(row)
        lines.append(_markdown_row(_cells(result, row, f"**{top1}**" if row.top1 == result.best else top1)))
    lines += ["", "Top-1 and top-5 in percent; ± is the standard deviation of top-1 over runs."]
    for note in notes:
        lines += ["", note]
    return "\n".join(lines) + "\n"


def plain(result: Result) -> str:
    """The table as aligned text, at most 100 columns with the usual names; `*` marks the best top-1."""
    cells: list[tuple[str, ...]] = [HEADINGS]
    digits = max(len(f"{row.top1:.2f}") for row in result.rows)
    cells += [_cells(result, row, _top1(row, digits) + ("*" if row.top1 == result.best else "")) for row in result.rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    # Top-1 is aligned at its point, which a deviation follows in some rows only.
    right = [heading in NUMERIC and heading != "top-1" for heading in HEADINGS]
    lines = [result.title, *result.notes]
    for line in cells:
        aligned = (
            text.rjust(width) if flush else text.ljust(width)
            for text, width, flush in zip(line, widths, right, strict=True)
        )
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


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


def _identity(result: Result) -> str:
    """Data set, model, pretrained tag and hash of the weights, in one line."""
    encoder = result.encoder
    parts = [f"Data set `{result.dataset}`", f"model `{encoder.get('name') or result.model}`"]
    if result.untrained:
        parts.append(f"weights **{UNTRAINED}**")
    elif encoder.get("pretrained"):
        parts.append(f"pretrained `{encoder['pretrained']}`")
    if encoder.get("weights") not in (None, UNTRAINED):
        parts.append(f"weights hash `{encoder['weights']}`")
    return ", ".join(parts) + "."


def _top1(row: Row, digits: int = 0) -> str:
    return f"{row.top1:{digits}.2f}" + (f" ± {row.std:.2f}" if row.runs > 1 else "")


def _cells(result: Result, row: Row, top1: str) -> tuple[str, ...]:
    """The cells of a row; top-5 is a dash where there are fewer than five classes, so that every answer is in it."""
    top5 = NOTHING if result.classes is not None and result.classes < TOP else f"{row.top5:.2f}"
    return (row.method, top1, top5, row.views, row.texts, str(row.images), str(row.runs))


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
