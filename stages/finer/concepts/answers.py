"""The request about a concept, and a language model's answer -> required and likely attributes."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.common.requests import Request
from stages.common.thoughts import without_marks, without_thoughts
from stages.finer.attributes import Attributes
from stages.finer.lists import clean_items, plain_item, says_none
from stages.finer.params import Concepts, merge_settings

SYSTEM = (
    "You sort what can be seen of a concept. Required attributes are visible, physical features that every typical "
    "photo of it shows and that help to tell it from its relatives: colours, patterns, shapes, parts. Likely "
    "attributes are visible features that it often but not always shows. Leave out size, weight, behaviour, sound, "
    "history and anything that a photo cannot show. Each attribute is a short noun phrase without the concept's name."
)
AS_JSON = ' Answer with JSON of the form {"required": ["..."], "likely": ["..."]} and nothing else.'
AS_LISTS = (
    ' Answer with two lists and nothing else: the heading "Required:" and under it one attribute a line after a '
    'hyphen, then the heading "Likely:" and its attributes likewise; write "none" under a heading without any.'
)
_STRINGS = {"type": "array", "items": {"type": "string"}}
RESPONSE_FORMAT: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "attributes",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"required": _STRINGS, "likely": _STRINGS},
            "required": ["required", "likely"],
            "additionalProperties": False,
        },
    },
}
MAX_TOKENS = 600


class _Sorted(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    required: list[str]
    likely: list[str]


class NoAttributes(ValueError):
    """An answer without sorted attributes; the exception's text is the reason."""


def concept_request(name: str, kind: str | None, text: str, settings: Concepts) -> Request:
    """The request for one concept (FINER, section 3).

    Args:
        name: as the request names it.
        kind: what it is a kind of, if known.
        text: the excerpt of its encyclopedic text; if empty, the model is asked for what it knows.
    """
    about = f'Concept: "{name}"' + (f", a kind of {kind}." if kind else ".")
    prompt = f"{about}\nText: {text}" if text else f"{about}\nThere is no text about it; say what you know."
    body: dict[str, Any] = {
        "model": settings.model,
        "messages": [
            {"role": "system", "content": SYSTEM + (AS_JSON if settings.structured else AS_LISTS)},
            {"role": "user", "content": prompt},
        ],
        **merge_settings({"temperature": 0.0, "max_tokens": MAX_TOKENS}, settings.settings),
    }
    if settings.structured:
        body["response_format"] = RESPONSE_FORMAT
    return Request(name, prompt, 0, "chat", body)


_QUALITY = (
    r"(?:visual|visible|physical|attributes?|features?|characteristics?|traits?|ones|and|the|that|are|most"
    r"|to|be|seen|shown|present|observed)"
)
_HEADING = re.compile(
    rf"^(?:{_QUALITY}\s+)*(required|likely)(?:\s+{_QUALITY})*\s*+(?:\([^)]*\))?\s*+(?::\s*(.*)|\.?)$", re.IGNORECASE
)
_MARKED_HEADING = re.compile(rf"^(?:{_QUALITY}\s+)*(required|likely)\b[^:]*(?::\s*(.*))?$", re.IGNORECASE)
_BOLD = re.compile(r"(\*\*|__)(?:(?!\1).)+(?:\1\s*:?|:\1.*)$")


def parse_attributes(answer: str) -> tuple[Attributes, Counter[str]]:
    """The attributes of an answer (JSON or lists), and how many were dropped for each reason.

    Lists may have numbers, any bullets or none. A heading is "Required" or "Likely" in any case, alone on its line or
    before a colon, or a line that Markdown marks as a heading and that begins with such a word. So an attribute that
    only contains the word is not a heading. A paragraph after the items of a list is not an attribute.

    Raises:
        NoAttributes: neither JSON of the schema, nor a heading with a required attribute under it.
    """
    text = without_marks(without_thoughts(answer)).strip()
    found = _from_json(text) or _from_lists(text)
    dropped: Counter[str] = Counter()
    required = clean_items(found.required, set(), dropped)
    likely = clean_items(found.likely, {item.casefold() for item in required}, dropped)
    if not required:
        raise NoAttributes("no required attribute in it")
    return Attributes(required, likely), dropped


def _from_json(text: str) -> _Sorted | None:
    start, end = text.find("{"), text.rfind("}")
    if not 0 <= start < end:
        return None
    try:
        found = dict(json.loads(text[start : end + 1]))
        return _Sorted.model_validate({str(k).casefold(): v for k, v in found.items()})
    except (ValueError, TypeError, ValidationError, RecursionError):
        return None


def _from_lists(text: str) -> _Sorted:
    lists: dict[str, list[str]] = {"required": [], "likely": []}
    under: list[str] | None = None
    blank = itemised = False  # of the current list: whether its last line is blank, and whether its items have bullets
    for raw in text.splitlines():
        line, bulleted = plain_item(raw)
        heading = _heading(raw, line, bulleted=bulleted)
        if heading:
            under = lists[heading[1].casefold()]
            under += _pieces(heading[2] or "", r";|,(?! (?:and|or) )")
            blank, itemised = False, bool(heading[2])
        elif not line:
            blank = True
        elif under is None or raw.lstrip().startswith("#") or (line.endswith(":") and not bulleted):
            continue  # an introduction, or the heading of a part of a list
        elif bulleted or not (blank and itemised):
            under += _pieces(line, ";")
            blank, itemised = False, itemised or bulleted or says_none(line)
    return _Sorted(required=lists["required"], likely=lists["likely"])


def _heading(raw: str, line: str, *, bulleted: bool) -> re.Match[str] | None:
    """The match of a list's heading: its name, and the rest of its line."""
    marked = line.endswith(":") or raw.lstrip().startswith("#") or (not bulleted and _BOLD.match(raw.strip()))
    return _HEADING.match(line) or (_MARKED_HEADING.match(line) if marked else None)


def _pieces(text: str, separators: str) -> list[str]:
    """The items of a line. A line that says "none" is not split, because the reason after it is not an attribute."""
    return [text] if says_none(text) else [part for part in re.split(separators, text) if part.strip()]
