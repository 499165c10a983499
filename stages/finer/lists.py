"""Lists that a language model wrote -> items without bullets, Markdown and repetitions."""

from __future__ import annotations

import re
from collections import Counter

# A dash, star or number without a space after it is a bullet only before a word: in "-red crown", not in "-5" or "3.5
# cm".
_DASH = r"[-*+>\u2010\u2011\u2013\u2014\u2212]"
_SYMBOL = r"[^\w\s\x00-\x7f\u2010-\u201f\u2026\u2039\u203a\u2212\u2248«»°±]"
_WORD = r"""(?=[^\W\d_]|[(\["'“‘])"""
_BULLET = re.compile(
    rf"^\s*(?:(?:{_SYMBOL}|{_DASH})*{_SYMBOL}\s*|{_DASH}+(?:\s+|{_WORD})|\(?\d{{1,3}}(?:[.):]\s+|[.)]{_WORD})"
    rf"|\(?(?:[a-z]|[ivx]{{2,4}})[.)]\s+)(?:\[[ x]?\]\s*)?",
    re.IGNORECASE,
)

_MARKS = re.compile(r"\*\*|__|`")
_ITALIC = re.compile(r"(?<![\w*])\*(?=\S)([^*]+)(?<=\S)\*(?![\w*])")
_NONE = re.compile(
    r"(?:(?:none|nothing)\b.*|n[./]?a(?:\W.*)?|unknown|unspecified|no (?:attributes|required|likely|others?)\b.*"
    r"|not (?:specified|mentioned|applicable|stated|given|described|available|known)(?: (?:in|by|from|here)\b.*)?)",
    re.IGNORECASE,
)
_NUMBER = r"\d[\d.,–-]{0,20}\s?"
_UNIT = r"(?:mm|[ck]?m|inch(?:es)?|ft|foot|k?g|lbs?|pounds?|oz|ounces?|tons?|tonnes?|\w{0,20}met(?:re|er)s?)"
# Animals have feet, so "4 feet" is a measure only with a word such as "long" after it.
_FEET = rf"(?:\d+[.,]{_NUMBER}feet|{_NUMBER}feet[\s-]+(?:long|tall|high|wide|deep|across|in (?:length|height|width)))"
_MEASURE = re.compile(rf"\b(?:{_NUMBER}{_UNIT}|{_FEET}|weigh(?:s|ing|t)|wingspan|body mass)\b", re.IGNORECASE)


def clean_attributes(items: list[str]) -> list[str]:
    """Items of a list without bullets, Markdown, "none", repetitions, sizes and weights."""
    return clean_items(items, set(), Counter())


def plain_item(text: str) -> tuple[str, bool]:
    """A line or item without Markdown and bullet, and whether it had a bullet."""
    unmarked = _ITALIC.sub(r"\1", _MARKS.sub("", text)).lstrip(" \t#")
    plain = _BULLET.sub("", unmarked)
    return plain.strip().rstrip("*"), plain != unmarked


def says_none(item: str) -> bool:
    """Whether an item says that there is none: "none visible", "N/A"."""
    return _NONE.fullmatch(" ".join(plain_item(item)[0].split()).strip(" .;,\"'“”()[]<>_")) is not None


def clean_items(items: list[str], seen: set[str], dropped: Counter[str]) -> list[str]:
    """As `clean_attributes`, with counts of what was dropped.

    Args:
        seen: items that count as repetitions, in lower case; kept items are added.
        dropped: counts dropped items by reason.
    """
    kept = []
    for item in items:
        text = " ".join(plain_item(item)[0].split()).strip(" .;,\"'“”_")
        if not re.search(r"[^\W\d_]", text) or says_none(text):
            dropped["none"] += 1
        elif text.casefold() in seen:
            dropped["twice"] += 1
        elif _MEASURE.search(text):
            dropped["size or weight"] += 1
        else:
            seen.add(text.casefold())
            kept.append(text)
    return kept
