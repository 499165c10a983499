"""The headline tables of the benchmark, as Markdown and as plain text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from textwrap import wrap

from tabulate import tabulate

from stages.finer.figures import ATTRSEEK_GAIN, GAP, GENERATION, HELD_OUT, SEEN, Figures
from stages.finer.promptings import ATTRSEEK, GRANULARITIES, MODALITIES, PLAIN, PROMPTINGS
from stages.finer.report.results import Results

WIDTH = 116
"""Columns that plain text may take."""
LVLM = "LVLM"
NONE = "–"
"""In place of a figure without data."""
# The names that `interval` expects, and the probe's names.
ENDS = (("", "mean"), ("_low", "low"), ("_high", "high"))
LEFT = {"prompting", "granularity", "classes", LVLM, "data set", "model"}
"""Headings of columns with words. The others have numbers."""

COUNTS = ("asked", "missing", "empty", "unmarked", "cut")
"""Counts of a cell's questions."""
SCORES_KEY = (
    "In percent, [low, high]: 95 % interval by resampled classes, too narrow if these are few. EM and F1: the "
    "published rules, over the questions that have an answer; strict EM: whole words, a hyphen counts as a space. "
    "missing: no answer, in no mean; empty: an answer without words; unmarked: no "
    '"Answer:" in it, so the whole text is scored; cut: reached max_tokens.'
)
DIFFERENCE_KEY = (
    "Points of percent over the same images; both sides' EM are over these pairs. left out: an answer is missing on "
    "either side."
)
GENERATION_KEY = (
    "ATTRSEEK's first answers against the concept's required attributes: ROUGE-L (F-measure, no stemming) and BLEU in "
    "percent, cosine of text embeddings. unknown: the concept has no required attributes; left out."
)
PROBE_KEY = "Accuracy in percent of a probe on the vision tower's features, before and after the projector."


@dataclass(frozen=True)
class Table:
    title: str
    headings: tuple[str, ...]
    rows: list[list[str]]
    key: str = ""
    """What the columns mean: a paragraph under the last of several similar tables."""


def all_tables(results: Results, digits: int) -> Iterator[tuple[str, list[Table]]]:
    """Chapters: headings with their tables. Tables without rows are left out."""
    for dataset in results.datasets:
        chapters = (
            ("exact match and F1", [*score_tables(results, dataset, digits)]),
            ("before and after tuning", [*class_tables(results, dataset, digits)]),
            ("modality gap: text only minus image only, fine level", [gap_table(results, dataset, digits)]),
            ("ATTRSEEK minus plain, image only", [attrseek_table(results, dataset, digits)]),
            ("generated attributes", [generation_table(results, dataset, digits)]),
        )
        for name, tables in chapters:
            filled = [table for table in tables if table.rows]
            if filled:
                # The key is printed once, under the last table.
                yield f"{dataset}: {name}", [*(replace(table, key="") for table in filled[:-1]), filled[-1]]
    if results.probes:
        yield "linear probe", [probe_table(results, digits)]


def score_tables(results: Results, dataset: str, digits: int) -> Iterator[Table]:
    """One table for each granularity and modality, with rows by prompting style and LVLM."""
    headings = ("prompting", LVLM, "EM", "F1", "strict EM", *COUNTS)
    for granularity in GRANULARITIES:
        for modality in MODALITIES:
            rows = [
                [prompting, lvlm, *_scores(cell, digits), *_counts(cell, *COUNTS)]
                for prompting in PROMPTINGS
                for lvlm, figures in results.of(dataset)
                if (cell := figures.get(f"{granularity}/{modality}/{prompting}"))
            ]
            yield Table(f"{granularity}, {modality}", headings, rows, SCORES_KEY)


def class_tables(results: Results, dataset: str, digits: int) -> Iterator[Table]:
    """The fine level, separately for classes in the mixture and those held out of it."""
    headings = ("prompting", "classes", LVLM, "EM", "F1", "strict EM", "asked", "missing")
    for modality in MODALITIES:
        rows = [
            [prompting, part, lvlm, *_scores(cell, digits), *_counts(cell, "asked", "missing")]
            for prompting in PROMPTINGS
            for part in (SEEN, HELD_OUT)
            for lvlm, figures in results.of(dataset)
            if (cell := figures.get(f"fine/{modality}/{prompting}/{part}"))
        ]
        yield Table(f"fine, {modality}, classes in the mixture and held out of it", headings, rows, SCORES_KEY)


def gap_table(results: Results, dataset: str, digits: int) -> Table:
    headings = ("prompting", LVLM, "text EM", "image EM", "gap in EM", "gap in F1", "images", "left out")
    return Table(
        "", headings, _differences(results, dataset, GAP, PROMPTINGS, ("text", "image"), digits), DIFFERENCE_KEY
    )


def attrseek_table(results: Results, dataset: str, digits: int) -> Table:
    headings = ("granularity", LVLM, "plain EM", "ATTRSEEK EM", "gain in EM", "gain in F1", "images", "left out")
    rows = _differences(results, dataset, ATTRSEEK_GAIN, GRANULARITIES, (PLAIN, ATTRSEEK), digits)
    return Table("", headings, rows, DIFFERENCE_KEY)


def generation_table(results: Results, dataset: str, digits: int) -> Table:
    headings = (LVLM, "ROUGE-L", "BLEU", "cosine", "asked", "missing", "empty", "unknown")
    found = [(lvlm, figures[GENERATION]) for lvlm, figures in results.of(dataset) if figures.get(GENERATION)]
    rows = [
        [
            lvlm,
            interval(own, "rouge_l", digits),
            number(own["bleu"], digits),
            interval(own, "cosine", digits + 1),
            *_counts(own, "asked", "missing", "empty", "unknown"),
        ]
        for lvlm, own in found
    ]
    signatures = sorted({own["bleu_signature"] for _, own in found if own.get("bleu_signature")})
    return Table("", headings, rows, " ".join([GENERATION_KEY, *(f"BLEU: {text}." for text in signatures)]))


def probe_table(results: Results, digits: int) -> Table:
    headings = ("model", "data set", "before", "after", "difference", "chance", "train", "test")
    rows = [
        [
            str(probe["model"]),
            str(probe["dataset"]),
            *(_spread(probe[side], digits) for side in ("before", "after")),
            interval({f"gap{key}": probe["difference"][name] for key, name in ENDS}, "gap", digits, "+"),
            number(probe["chance"], digits),
            *_counts(probe["images"], "train", "test"),
        ]
        for probe in results.probes
    ]
    return Table("", headings, rows, PROBE_KEY)


def markdown(results: Results) -> str:
    """All tables as Markdown, with two digits."""
    lines = ["# FINER"]
    lines += ["", f"**{note}**"] if (note := _note(results)) else []
    for chapter, tables in all_tables(results, 2):
        lines += ["", f"## {chapter}"]
        for table in tables:
            lines += ["", f"### {table.title}"] if table.title else []
            escaped = [[cell.replace("|", "\\|") for cell in row] for row in table.rows]
            lines += ["", *_tabulated(table, escaped, table.headings, "pipe")]
            lines += ["", table.key] if table.key else []
    return "\n".join(lines) + "\n"


def plain(results: Results) -> str:
    """All tables as aligned text of at most `WIDTH` columns, with one digit."""
    lines = [note] if (note := _note(results)) else []
    for chapter, tables in all_tables(results, 1):
        lines += ["", chapter, "=" * len(chapter)]
        for table in tables:
            lines += [f"\n{table.title}"] if table.title else []
            lines += _aligned(table)
            lines += ["", *wrap(table.key, WIDTH)] if table.key else []
    return "\n".join(lines).strip("\n")


def interval(figures: Figures, measure: str, digits: int, sign: str = "") -> str:
    """`66.7 [55.1, 77.2]`, without brackets if there is no interval; `sign` "+" shows plus and minus."""
    text = number(figures[measure], digits, sign)
    ends = [figures.get(f"{measure}_{end}") for end in ("low", "high")]
    if None in ends:
        return text
    return f"{text} [{', '.join(number(end, digits, sign) for end in ends)}]"


def number(value: float | None, digits: int, sign: str = "") -> str:
    return NONE if value is None else f"{value:{sign}.{digits}f}"


def _spread(side: Figures, digits: int) -> str:
    return f"{number(side['mean'], digits)} ± {number(side['std'], digits)}"


def _scores(cell: Figures, digits: int) -> list[str]:
    return [interval(cell, "em", digits), interval(cell, "f1", digits), number(cell["strict_em"], digits)]


def _counts(figures: Figures, *names: str) -> list[str]:
    return [str(figures[name]) for name in names]


def _differences(
    results: Results, dataset: str, name: str, kinds: Iterable[str], sides: tuple[str, str], digits: int
) -> list[list[str]]:
    """Rows of a table of differences: kind, LVLM, the EM of both sides, the differences, and how many images."""
    return [
        [
            kind,
            lvlm,
            *(number(own[f"em_{side}"], digits) for side in sides),
            interval(own, "em", digits, "+"),
            interval(own, "f1", digits, "+"),
            *_counts(own, "pairs", "left_out"),
        ]
        for kind in kinds
        for lvlm, figures in results.of(dataset)
        if (own := figures.get(name, {}).get(kind))
    ]


def _note(results: Results) -> str:
    """The note about data sets that need one. It names them if there are others."""
    noted = [dataset for dataset in results.datasets if results.note(dataset)]
    if not noted:
        return ""
    named = "" if noted == results.datasets else f"{', '.join(noted)}: "
    return named + results.note(noted[0])


def _aligned(table: Table) -> list[str]:
    """The lines of a table. Names of LVLMs and models are shortened if it would be too wide."""
    lines = [list(table.headings), *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.headings))]
    over = max(0, sum(widths) + 2 * (len(widths) - 1) - WIDTH)
    limits = [
        max(6, width - over) if heading in (LVLM, "model") else width
        for heading, width in zip(table.headings, widths, strict=True)
    ]
    fitting = [[_shortened(cell, limit) for cell, limit in zip(line, limits, strict=True)] for line in lines]
    # As a first row, because tabulate makes columns wider for a heading.
    return [line.rstrip() for line in _tabulated(table, fitting, (), "plain")]


def _tabulated(table: Table, rows: list[list[str]], headings: Sequence[str], style: str) -> list[str]:
    sides = ["left" if heading in LEFT else "right" for heading in table.headings]
    text = tabulate(rows, headings, style, disable_numparse=True, colalign=sides)
    return text.splitlines()


def _shortened(text: str, width: int) -> str:
    """The text. If it is too wide, its start and its end, because models of a family differ at the end."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"
