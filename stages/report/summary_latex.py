"""LaTeX for the summary: escaped texts, and tables with booktabs."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

PREAMBLE = r"""% Needs \usepackage{booktabs}. Write \input{summary} where the tables belong, or compile this file alone.
\expandafter\ifx\csname @nodocument\endcsname\relax\else
\documentclass{article}
\usepackage[landscape,margin=1cm]{geometry}
\usepackage{booktabs}
\def\summaryend{\end{document}}
\begin{document}
\fi
"""

SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "`": r"\textasciigrave{}", "±": r"$\pm$",
    "†": r"$^\dagger$", "‡": r"$^\ddagger$",
    "−": "$-$", "–": "--", "—": "---", "ß": r"{\ss}", "æ": r"{\ae}", "Æ": r"{\AE}", "ø": r"{\o}", "Ø": r"{\O}",
    "œ": r"{\oe}", "Œ": r"{\OE}", "ł": r"{\l}", "Ł": r"{\L}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip
ACCENTS = dict(
    zip("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327", "`'^~=u.\"rHvc", strict=True)
)
"""Combining accent -> LaTeX's command for it, which every font encoding has."""


def escaped(text: str) -> str:
    """A text in which LaTeX sees no commands.

    pdfLaTeX knows no letters beyond Latin ones without further packages: there it writes their code, and LuaLaTeX and
    XeLaTeX the letter.
    """
    return "".join(map(_character, " ".join(unicodedata.normalize("NFC", text).split())))


def _character(character: str) -> str:
    base, accent = [*unicodedata.normalize("NFD", character), "", ""][:2]
    if character in SPECIAL:
        return SPECIAL[character]
    if character.isascii():
        return character
    if base.isascii() and accent in ACCENTS and unicodedata.normalize("NFC", base + accent) == character:
        return rf"\{ACCENTS[accent]}{{{base}}}"
    return rf"\ifdefined\Umathchar {character}\else U+{ord(character):04X}\fi{{}}"


def float_of(
    heads: Sequence[str],
    sides: str,
    blocks: Sequence[tuple[str, list[list[str]]]],
    caption: Sequence[str],
    notes: Sequence[str],
) -> str:
    """A table that floats.

    Args:
        sides: one letter for each column, as `tabular` takes them.
        blocks: a heading over all columns, or none, and rows, all escaped.
        caption: sentences; not escaped, as `heads` and `notes`.
    """
    lines = [r"\begin{table}[htbp]", r"\centering", rf"\caption{{{escaped(' '.join(caption))}}}", r"\smallskip"]
    lines += [rf"\begin{{tabular}}{{@{{}}{sides}@{{}}}}", r"\toprule", _row(map(escaped, heads))]
    for heading, rows in blocks:
        lines += [r"\midrule"] + ([rf"\multicolumn{{{len(heads)}}}{{@{{}}l}}{{{heading}}} \\"] if heading else [])
        lines += map(_row, rows)
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip{{\footnotesize {escaped(note)}\par}}" for note in notes]
    return "\n".join([*lines, r"\end{table}", ""])


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"
