"""The user's encyclopedic texts about classes: JSON Lines of `name` and `text`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from stages.common.errors import UserError, nearest, warn
from stages.common.jsons import parse_json
from stages.common.names import spelling

WANTED = ("description", "design")
"""Wikipedia's headings of the section that says what a concept looks like (FINER, section 3)."""

_WIKI = re.compile(r"^(={2,6})\s*(.+?)\s*\1$")
_MARKDOWN = re.compile(r"^(#{1,6})\s+(.+?)\s*#*$")
_BARE = re.compile(r"^[A-Z][\w'’-]*(?: [\w'’-]+){0,3}:?$")
_BARE_LEVEL = 7


def read_texts(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Class name -> text, for the classes in the file; empty without a file.

    Raises:
        UserError: a line that is not `{"name": ..., "text": ...}`, two of one class, or a file that is not UTF-8.
    """
    if not path.exists():
        return {}
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not in UTF-8 ({error.reason} at byte {error.start}); save it as such") from None
    class_of = {spelling(name): name for name in names}
    texts: dict[str, str] = {}
    unknown = []
    # `splitlines` would also cut at characters that JSON allows in a string.
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = parse_json(line.encode(), f"{path}, line {number}", "correct the line")
            name, text = record["name"], record["text"]
            right = isinstance(name, str) and isinstance(text, str)
        except (KeyError, TypeError):
            right = False
        if not right:
            raise UserError(f'{path}, line {number}: expected {{"name": "...", "text": "..."}}; correct the line')
        known = class_of.get(spelling(name))
        if known is None:
            unknown.append(f"'{name}'{nearest(name, list(names))}")
        elif known in texts:
            raise UserError(f"{path}, line {number}: a second text of '{known}'; keep one")
        else:
            texts[known] = text
    if unknown:
        more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        warn(f"{path}: {len(unknown)} texts are of no class and not used: {', '.join(unknown[:10])}{more}")
    return texts


def excerpt(text: str, words: int) -> str:
    """The first `words` words of the section headed Description or Design, or of the whole text without one."""
    return " ".join((_section(text) or text).split()[:words])


def _section(text: str) -> str:
    """The text under the first wanted heading, with its subsections; empty if there is no such heading."""
    level, kept = 0, []
    before = ""
    for line in text.splitlines():
        found = _heading(line.strip(), first_of_paragraph=not before.strip())
        before = line
        if level:
            if found and found[0] <= level:
                break
            kept += [] if found else [line]
        elif found and found[1].casefold() in WANTED:
            level = found[0]
    return "\n".join(kept).strip()


def _heading(line: str, *, first_of_paragraph: bool) -> tuple[int, str] | None:
    """Level and title of a heading: a wiki's, Markdown's, or a line of a few words that begins a paragraph."""
    if match := _WIKI.match(line) or _MARKDOWN.match(line):
        return len(match[1]), match[2]
    if first_of_paragraph and _BARE.match(line):
        return _BARE_LEVEL, line.removesuffix(":")
    return None
