"""What made a table: the version of the scoring, and the files of descriptions as they were then.

The predictions carry both, so a file that was changed since is not named in its place.
"""

from __future__ import annotations

from tabulate import tabulate

from stages.common import paths
from stages.common.artifacts import PredictionsParameters, SourceFile

EARLIER = "Made by an earlier version, which did not note the scoring and the files of descriptions."
HEADINGS = ("source", "file", "SHA-256, first 16 digits", "sentences", "written by")


def plain(made_with: PredictionsParameters | None) -> list[str]:
    """Lines to stand under a table; none if the predictions are missing.

    Args:
        made_with: parameters of the predictions.
    """
    if made_with is None:
        return []
    if not made_with.scoring:
        return [EARLIER]
    rows = [(f"  {of.name}", of.sha256, f"{of.sentences}", _written_by(of)) for of in made_with.files]
    sides = ("left", "left", "right", "left")
    table = tabulate(rows, (), "plain", disable_numparse=True, colalign=sides, preserve_whitespace=True) if rows else ""
    first = f"scoring {made_with.scoring}" + ("; source, hash of its file, sentences, written by:" if rows else "")
    return [first, *table.splitlines()]


def markdown(dataset: str, made_with: PredictionsParameters) -> list[str]:
    """The section of a page, as lines."""
    lines = ["", "## What made it", ""]
    if not made_with.scoring:
        return [*lines, EARLIER]
    lines.append(said(made_with))
    if made_with.files:
        sides = ("left", "left", "left", "right", "left")
        code = [
            (name, f"`{path}`", f"`{sha256}`", sentences, origin.replace("|", "\\|"))
            for name, path, sha256, sentences, origin in rows(dataset, made_with)
        ]
        lines += ["", tabulate(code, HEADINGS, "github", disable_numparse=True, colalign=sides)]
    return lines


def said(made_with: PredictionsParameters) -> str:
    """The line over the table of files."""
    if not made_with.scoring:
        return EARLIER
    files = " The files of descriptions, as they were when the texts were made of them:" if made_with.files else ""
    return f"Scoring version {made_with.scoring}.{files}"


def rows(dataset: str, made_with: PredictionsParameters) -> list[tuple[str, str, str, str, str]]:
    """The files of descriptions, under `HEADINGS`."""
    return [
        (of.name, paths.descriptions(dataset, of.name).as_posix(), of.sha256, str(of.sentences), _written_by(of))
        for of in made_with.files
    ]


def _written_by(file: SourceFile) -> str:
    """The LLM, in one line."""
    return " ".join((file.origin or "unknown").split())
