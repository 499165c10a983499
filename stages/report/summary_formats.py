"""The summary as Markdown, as text for a terminal, and as LaTeX. What is said is the same; the marks differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from stages.report.published import Comparison
from stages.report.summary_latex import PREAMBLE, escaped, float_of
from stages.report.summary_tables import BEST, DIGITS, OTHER_IMAGES, SECOND, Cell, Summary, Table
from stages.report.table import BEYOND_NOISE

PUBLISHED_TITLE = "Published figures beside ours (top-1 accuracy, %)"
PUBLISHED_HEAD = ("data set", "model", "method", "ours", "published", "difference", "reported in")


@dataclass(frozen=True)
class Style:
    """How a format writes a figure."""

    marks: dict[int, Callable[[str], str]]
    """BEST and SECOND: round the number, or behind it."""
    legend: str
    """What the marks are."""
    dash: str
    text: Callable[[str], str] = str
    """Escapes a text."""
    number: Callable[[str], str] = str
    trailing: bool = False
    """Marks stand behind the deviation."""


MARKDOWN = Style(
    {BEST: "**{}**".format, SECOND: "<ins>{}</ins>".format},
    "Bold: the best of a model; underlined: the second best.",
    "–",
    lambda text: " ".join("".join(f"\\{c}" if c in "\\|*<[`" else c for c in text).split()),
)
PLAIN = Style(
    {BEST: "{}*".format, SECOND: "{}+".format}, "*: the best of a model; +: the second best.", "-", trailing=True
)
LATEX = Style(
    {BEST: r"\textbf{{{}}}".format, SECOND: r"\underline{{{}}}".format},
    "Bold: the best of a model; underlined: the second best.",
    "--",
    escaped,
    lambda number: f"${number}$" if number[0] in "+-" else number,
)


def markdown(summary: Summary) -> str:
    """The summary as a page."""
    parts = ["# Summary", *summary.notes]
    for table in summary.tables:
        heads = ["model", "method", *table.columns]
        rows = [
            (
                MARKDOWN.text(block.label) if not place else "",
                MARKDOWN.text(line.method),
                *_cells(line.cells, table, MARKDOWN),
            )
            for block in table.blocks
            for place, line in enumerate(block.lines)
        ]
        parts += [f"## {table.title}", _github(rows, heads, 2), " ".join(_legend(table, MARKDOWN))]
    if summary.comparisons:
        rows = [tuple(map(MARKDOWN.text, row)) for row in _published(summary.comparisons)]
        parts += [f"## {PUBLISHED_TITLE}", _github(rows, PUBLISHED_HEAD, 3, 1), *_remarks(summary.comparisons)]
    return "\n\n".join(filter(None, parts)) + "\n"


def plain(summary: Summary) -> str:
    """The summary as aligned text."""
    parts = []
    for table in summary.tables:
        lines = [line.cells for line in table.lines()]
        widths = [
            max((len(_number(cell, table, PLAIN)) for cell in column), default=0) for column in zip(*lines, strict=True)
        ]
        rows = [
            (block.label if not place else "", line.method, *_cells(line.cells, table, PLAIN, widths))
            for block in table.blocks
            for place, line in enumerate(block.lines)
        ]
        parts.append(
            "\n".join([table.title, _aligned([("model", "method", *table.columns), *rows]), *_legend(table, PLAIN)])
        )
    if summary.comparisons:
        rows = _published(summary.comparisons)
        parts.append("\n".join([PUBLISHED_TITLE, _aligned([PUBLISHED_HEAD, *rows]), *_remarks(summary.comparisons)]))
    parts += ["\n".join(summary.notes)] if summary.notes else []
    return "\n\n".join(parts)


def latex(summary: Summary) -> str:
    """One float for each table, with booktabs. The file can be put into a paper, or be compiled alone."""
    parts = [PREAMBLE]
    for table in summary.tables:
        blocks = [
            (escaped(block.label), [[escaped(line.method), *_cells(line.cells, table, LATEX)] for line in block.lines])
            for block in table.blocks
        ]
        caption = [f"{table.title}.", *_legend(table, LATEX)]
        parts.append(
            float_of(["method", *table.columns], "l" + "r" * len(table.columns), blocks, caption, summary.notes)
        )
    if summary.comparisons:
        rows = [[*map(escaped, row)] for row in _published(summary.comparisons, minus="−")]
        caption = [f"{PUBLISHED_TITLE}.", *_remarks(summary.comparisons)]
        parts.append(float_of(PUBLISHED_HEAD, "lllrrrl", [("", rows)], caption, summary.notes))
    return "\n".join([*parts, r"\csname summaryend\endcsname"]) + "\n"


def _number(cell: Cell, table: Table, style: Style) -> str:
    if cell.value is None:
        return style.dash
    value = round(cell.value, DIGITS) + 0.0  # without the sign of a negative zero
    return style.number(f"{value:{'+' if table.signed else ''}.{DIGITS}f}")


def _cells(cells: Sequence[Cell], table: Table, style: Style, widths: Sequence[int] = ()) -> list[str]:
    """The texts of a row.

    Args:
        widths: of the numbers of each column, to align the points.
    """
    texts = []
    for place, cell in enumerate(cells):
        number = _number(cell, table, style)
        if widths:
            number = number.rjust(widths[place])
        deviation = "" if cell.std is None else f" {style.text('±')} {cell.std:.{DIGITS}f}"
        mark = style.marks.get(cell.rank, str)
        text = mark(number + deviation) if style.trailing else mark(number) + deviation
        texts.append(
            text
            + (f" {style.text(BEYOND_NOISE)}" if cell.beyond_noise else "")
            + (f" ({cell.averaged})" if cell.averaged else "")
        )
    return texts


def _legend(table: Table, style: Style) -> list[str]:
    """What the signs in a table mean; only of those that are there."""
    cells = list(table.cells())
    lines = [style.legend] if any(cell.rank for cell in cells) else []
    if any(cell.std is not None for cell in cells):
        lines.append("±: standard deviation over runs.")
    if any(cell.averaged for cell in cells):
        lines.append("(n): average over n data sets, those that all methods of the model have.")
    if any(cell.beyond_noise for cell in cells):
        lines.append(f"{BEYOND_NOISE}: more than noise; the 95 % interval of the difference leaves out zero.")
    return [*lines, *([table.remark] if table.remark else [])]


def _published(comparisons: Sequence[Comparison], minus: str = "-") -> list[tuple[str, ...]]:
    return [
        (
            one.dataset,
            one.model,
            one.method,
            f"{one.ours:.{DIGITS}f}",
            f"{one.published:.{DIGITS}f}" + (f" ± {one.std:.{DIGITS}f}" if one.std is not None else ""),
            f"{round(one.difference, DIGITS) + 0.0:+.{DIGITS}f}".replace("-", minus)
            + ("" if one.same_images else f" {OTHER_IMAGES}"),
            one.reported_in,
        )
        for one in comparisons
    ]


def _remarks(comparisons: Sequence[Comparison]) -> list[str]:
    """What a reader of the published figures must know."""
    others = {one.dataset: (one.images, one.expected) for one in comparisons if not one.same_images}
    which = "; ".join(f"{key} has {images} images here, {expected} there" for key, (images, expected) in others.items())
    return [f"{OTHER_IMAGES}: not of the same images, so no like for like: {which}."] if others else []


def _github(rows: Sequence[Sequence[str]], heads: Sequence[str], left: int, left_at_end: int = 0) -> str:
    figures = len(heads) - left - left_at_end
    sides = ["left"] * left + ["right"] * figures + ["left"] * left_at_end
    return tabulate(rows, heads, "github", disable_numparse=True, colalign=sides)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    text = tabulate(
        rows, (), "plain", disable_numparse=True, colalign=["left"] * len(rows[0]), preserve_whitespace=True
    )
    return "\n".join(line.rstrip() for line in text.splitlines())
