"""What an LVLM says it sees in an image (ATTRSEEK's first answer), as a list of attributes."""

from __future__ import annotations

import re

from stages.common.thoughts import without_thoughts
from stages.finer.lists import clean_attributes, says_none
from stages.finer.matching import extract_answer

HEADING = re.compile(r":\s*$")


def split_attributes(text: str) -> list[str]:
    """The attributes in an answer: separated by semicolons or lines, or by commas where there are neither.

    Bullets, numbers, Markdown, "none" and repetitions are dropped, as are headings.
    """
    body = extract_answer(without_thoughts(text))
    lines = [line for line in body.splitlines() if not HEADING.search(line)]
    pieces = [piece for line in lines for piece in line.split(";") if piece.strip()]
    if len(pieces) == 1 and not says_none(pieces[0]):
        pieces = re.split(r",\s*(?:and\s+)?", pieces[0])
    return clean_attributes(pieces)
