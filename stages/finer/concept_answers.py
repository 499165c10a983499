"""What a language model is asked about a concept, and its answer -> required and likely attributes."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.common.finer_params import Concepts
from stages.common.requests import Request
from stages.finer.attributes import Attributes

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
    """An answer in which no sorted attributes can be found; its text is the reason."""


def concept_request(name: str, kind: str | None, text: str, settings: Concepts) -> Request:
    """The request for one concept (FINER, section 3).

    Args:
        name: as it is asked for.
        kind: what it is a kind of, where known.
        text: the excerpt of its encyclopedic text, or empty: then the model says what it knows.
    """
    about = f'Concept: "{name}"' + (f", a kind of {kind}." if kind else ".")
    prompt = f"{about}\nText: {text}" if text else f"{about}\nThere is no text about it; say what you know."
    body: dict[str, Any] = {
        "model": settings.model,
        "messages": [
            {"role": "system", "content": SYSTEM + (AS_JSON if settings.structured else AS_LISTS)},
            {"role": "user", "content": prompt},
        ],
        "temperature": 0.0,
        "max_tokens": MAX_TOKENS,
    }
    if settings.structured:
        body["response_format"] = RESPONSE_FORMAT
    return Request(name, prompt, 0, "chat", body)


_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)
_JSON = re.compile(r"\{.*\}", re.DOTALL)
_BULLET = re.compile(r"^\s*(?:[-*•‣◦▪●○·–—+>✓✔➤→]+|\(?\d{1,3}[.):]|\(?[a-z][.)])\s+|^\s*[•‣◦▪●○·✓✔➤→]+", re.IGNORECASE)
_QUALITY = r"(?:visual|visible|physical|attributes?|features?|characteristics?|traits?|ones|and|the|that|are|most)"
_HEADING = re.compile(
    rf"^#*\s*(?:{_QUALITY}\s+)*(required|likely)(?:\s+{_QUALITY})*\s*(?:\([^)]*\))?\s*(?::\s*(.*)|\.?)$", re.IGNORECASE
)
_MARKS = re.compile(r"\*\*|__|`")
_NONE = re.compile(
    r"(?:none|n/?a|nothing|no(?:ne)? (?:attributes|required|likely|others?)\b.*|not specified|unknown)", re.IGNORECASE
)
_UNIT = r"(?:mm|[ck]?m|inch(?:es)?|ft|feet|foot|k?g|lbs?|pounds?|oz|ounces?|tons?|tonnes?|\w*met(?:re|er)s?)"
_MEASURE = re.compile(rf"\b(?:\d[\d.,–-]*\s*{_UNIT}|weigh(?:s|ing|t)|wingspan|body mass)\b", re.IGNORECASE)


def parse_attributes(answer: str) -> tuple[Attributes, Counter[str]]:
    """The attributes of an answer, JSON or lists, and how many were dropped for which reason.

    Lists may be numbered or have any bullet; headings are "Required" and "Likely" in any case, alone on their line or
    before a colon, so that an attribute in which such a word occurs is none.

    Raises:
        NoAttributes: neither JSON of the schema, nor a heading with a required attribute under it.
    """
    text = without_thinking(answer).strip()
    found = _from_json(text) or _from_lists(text)
    dropped: Counter[str] = Counter()
    required = _clean(found.required, set(), dropped)
    likely = _clean(found.likely, {item.casefold() for item in required}, dropped)
    if not required:
        raise NoAttributes("no required attribute in it")
    return Attributes(required, likely), dropped


def without_thinking(answer: str) -> str:
    """The answer without what a reasoning model thought before it."""
    return _THINKING.sub("", answer)


def clean_attributes(items: list[str]) -> list[str]:
    """Items of a list without bullets, Markdown, "none" and repetitions."""
    return _clean(items, set(), Counter())


def _from_json(text: str) -> _Sorted | None:
    match = _JSON.search(text)
    if match is None:
        return None
    try:
        return _Sorted.model_validate({str(k).casefold(): v for k, v in dict(json.loads(match[0])).items()})
    except (ValueError, TypeError, ValidationError):
        return None


def _from_lists(text: str) -> _Sorted:
    lists: dict[str, list[str]] = {"required": [], "likely": []}
    under: list[str] | None = None
    for raw in text.splitlines():
        line = _MARKS.sub("", _BULLET.sub("", _MARKS.sub("", raw))).strip()
        heading = _HEADING.match(line)
        if heading:
            under = lists[heading[1].casefold()]
            under += [part for part in re.split(r";|,(?! (?:and|or) )", heading[2] or "") if part.strip()]
        elif line and under is not None:
            under += [part for part in line.split(";") if part.strip()]
    return _Sorted(required=lists["required"], likely=lists["likely"])


def _clean(items: list[str], seen: set[str], dropped: Counter[str]) -> list[str]:
    kept = []
    for item in items:
        text = " ".join(_MARKS.sub("", _BULLET.sub("", item)).split()).strip(" .;,\"'“”")
        if not re.search(r"[^\W\d_]", text) or _NONE.fullmatch(text):
            dropped["none"] += 1
        elif text.casefold() in seen:
            dropped["twice"] += 1
        elif _MEASURE.search(text):
            dropped["size or weight"] += 1
        else:
            seen.add(text.casefold())
            kept.append(text)
    return kept
