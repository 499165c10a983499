"""Labels from folders, tables and archives: names or numbers, in a defined order."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal

from stages.common.errors import UserError

NOTHING = ("", "nan")
"""What programs write for a missing label."""

LONGEST = 10_000
"""Characters of a label, or of an image's path; Linux allows 4,096 in a path."""

NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def class_order(labels: Iterable[str]) -> list[str]:
    """The labels that occur, each once: in numeric order if all are numbers, otherwise in alphabetical order.

    Raises:
        UserError: two of them are the same number.
    """
    found = sorted(set(labels))
    if not all(NUMBER.fullmatch(label) for label in found):
        return found
    by_number: dict[Decimal, str] = {}  # exact: codes of 18 digits differ in the last
    for label in found:
        other = by_number.setdefault(Decimal(label), label)
        if other != label:
            raise UserError(f"the classes '{other}' and '{label}' are the same number; write one of them everywhere")
    return [by_number[number] for number in sorted(by_number)]


def first_unsure(names: Sequence[str]) -> tuple[str, str] | None:
    """Two names whose alphabetical and numeric orders differ ("class_10", "class_2"), or None.

    Args:
        names: in the order of `class_order`.
    """

    def natural(name: str) -> list[str | int]:
        return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", name))]

    pairs = zip(names, sorted(names, key=natural), strict=True)
    if all(NUMBER.fullmatch(name) for name in names):
        return None
    return next(((ours, other) for ours, other in pairs if ours != other), None)


def label_text(value: object) -> str:
    """A label as text; a whole number is written as one (3.0 is "3").

    Raises:
        ValueError: it is empty (null, NaN, an empty text) or a structure, such as {"label": 3} or [0].
    """
    if value is None:
        raise ValueError("the label is null; a label is a name or a number")
    if isinstance(value, bytes):
        value = value.decode("utf-8-sig")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and len(value) > LONGEST:
        raise ValueError(f"the label has {len(value):,} characters; a label has at most {LONGEST:,}")
    text = str(value).strip()
    if isinstance(value, list | dict | tuple | set) or is_structure(text):
        raise ValueError(f"the label is a structure, {text:.60}; a label is a name or a number")
    if text.casefold() in NOTHING or value in (math.inf, -math.inf):
        raise ValueError(f"the label is {text or 'empty'}; a label is a name or a number")
    return text


def is_structure(text: str) -> bool:
    """Whether a text is a list or an object in JSON or Python."""
    if not re.match(r"\s*[\[{(]", text):
        return False
    for parse in (json.loads, ast.literal_eval):
        try:
            return isinstance(parse(text), list | dict | tuple | set)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return False
