"""An LLM's answer -> the sentences or list items in it, with a count of what was dropped and why.

An answer may be anything of up to 1 MiB, so each pattern takes time in proportion to its length.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from stages.common.thoughts import without_marks, without_thoughts

Parse = Literal["sentences", "list"]

ABBREVIATIONS = {
    *("approx", "ca", "cf", "e.g", "i.e", "fig", "no", "vs", "al", "inc"),
    *("dr", "mr", "mrs", "ms", "prof", "jr", "sr", "st", "mt"),
    *("sp", "spp", "ssp", "subsp", "var"),
}
"""Words whose full stop does not end a sentence."""

_LONGEST_WORD = 100  # that is looked at as an abbreviation
_MOST_WRAPPED = 20  # quotation marks, lead-ins and the like around a text

_QUOTES = {'"': '"', "“": "”", "‘": "’", "'": "'", "«": "»", "`": "`"}
_BULLET = re.compile(r"^\s*(?:[-*•–—+·]+|\(?\d{1,3}[.)](?!\d))\s*")
_INLINE_LIST = re.compile(r"(?<!\d):[ \t]*(?=[-*•][ \t]*\S|1[.)][ \t]*(?!\d)\S)")
_EMPHASIS = re.compile(r"\*\*|__|(?<![\w*])\*(?=\w[^*\n]*\w\*(?!\w))|(?<=\w)\*(?![\w*])")
_IMAGE = re.compile(r"!\[[^\[\]\n]*\](?:\([^)\n]*\)?)?")
_LINK = re.compile(r"\[([^\[\]\n]*)\]\([^)\n]*\)?")
_HEADING = re.compile(r"^[^\S\n]*+#++\s+.*$", re.MULTILINE)
_HEADER = re.compile(r":\s*+(?:\d++[.)]?)?\s*+$")
_LEADING_JUNK = re.compile(r"^[\s,.;:?!…*_>#)\]–—-]+")
_END = re.compile(r"(?<![.!?…。！？])[.!?…。！？]++[\"'”’)\]*]*$")
_STOP = re.compile(r"(?<![.!?])([.!?]++)[\"'”’)\]]*+\s+|[。！？]+")
_STOP_WITHOUT_SPACE = re.compile(r"(?<=[a-z]{2}[.!?])(?=[A-Z][a-z]*\s)")
_WORD = re.compile(r"[^\W\d_]{2}")
# The end of a phrase that continues the prompt, joined to the next sentence: "catThe pet ...".
_GLUED = re.compile(r"^(?:\W*['’]s|\W*+[^A-Z.!?]*?[a-z]{2})(?=[A-Z])")
_FIRST = re.compile(r"[\"'“‘(*\[]*+(.?)", re.DOTALL)  # the first letter of a sentence

_YES = re.compile(r"^\s*(?:sure|certainly|of course|absolutely)(?: thing)?[!,.:]\s*", re.IGNORECASE)
_LEAD_IN = re.compile(
    r"^(?:here(?:['’]s| is| are) (?:[^\s:.]+ ){0,8}[^\s:.]+:\s*(?=\S)"
    r"|caption:\s*)",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"(?:^|[,;:.!–—-]\s*|\b(?:but|and|that|however|unfortunately),?\s+)"
    r"(?:as an? (?:\w+ )?(?:ai\b|language model|artificial intelligence)"
    r"|i(?:['’]m| am) (?:(?:very|so) )?(?:sorry|unable|not able|afraid|not sure|not familiar|an ai\b|only an? )"
    r"|i (?:can(?:not|['’]t| not)|could(?:n['’]t| not)|do(?:n['’]t| not) (?:have|know|recogni[sz]e)|apologi[sz]e)"
    r"|my apologies\b|sorry,|it is not possible for me)",
    re.IGNORECASE,
)
_CHATTER = re.compile(
    r"^(?:here(?:['’]s| is| are) (?:\S+ ){0,4}"
    r"(?:descriptions?|sentences?|captions?|features?|list|examples?|ways|characteristics)\b"
    r"|let me know|i hope|feel free|would you like|could you (?:please|provide|clarify|share)"
    r"|please (?:provide|share|upload|let me|clarify)"
    r"|if you (?:have|need|would like|['’]d like|want|can (?:provide|share)|provide|share)\b"
    r"|i(?:['’]d| would) be (?:happy|glad))",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Block:
    """One line of an answer, or several that were one line before wrapping."""

    text: str
    bullet: bool
    indented: bool


def clean(answer: str, parse: Parse, finish_reason: str | None = None) -> tuple[list[str], Counter[str]]:
    """The usable texts in `answer`, in order, and how many pieces were dropped for each reason.

    Reasons: "empty" (nothing in the answer), "no words" (as "." or "1."), "fragment" (the end of a phrase or a title
    before the first sentence), "header" (ends with ":"), "refusal", "chatter" (talk with the person who asked) and
    "cut" (unfinished or not begun, because `finish_reason` is "length").
    """
    dropped: Counter[str] = Counter()
    blocks = _blocks(answer)
    if not blocks:
        return [], Counter(["cut" if finish_reason == "length" else "empty"])
    if parse == "list":
        pieces = _list_items(blocks, dropped)
    else:
        pieces = _sentences(blocks, dropped)
    if finish_reason == "length" and pieces and (parse == "list" or not _is_finished(pieces[-1])):
        pieces.pop()
        dropped["cut"] += 1
    kept: list[str] = []
    for piece in pieces:
        text = _tidy(piece)
        if parse == "list":
            text = text.rstrip(" .;,")
        reason = _unusable(text)
        if reason is None:
            kept.append(text)
        else:
            dropped[reason] += 1
    return kept, dropped


def _blocks(answer: str) -> list[_Block]:
    text = _YES.sub("", without_marks(without_thoughts(answer)).lstrip()).replace("\r\n", "\n").replace("\r", "\n")
    text = _LINK.sub(r"\1", _IMAGE.sub("", text))
    text = _EMPHASIS.sub("", _HEADING.sub("", text))
    text = _INLINE_LIST.sub(":\n", text)
    groups: list[list[_Block]] = []
    for line in text.split("\n"):
        if not line.strip():
            continue
        bare = _BULLET.sub("", line, count=1).strip()
        block = _Block(bare, bullet=_BULLET.match(line) is not None, indented=line[:1] in " \t")
        if groups and _is_wrapped(groups[-1], block):
            groups[-1].append(block)
        else:
            groups.append([block])
    return [_Block(" ".join(line.text for line in own), own[0].bullet, own[0].indented) for own in groups]


def _is_wrapped(before: list[_Block], block: _Block) -> bool:
    """Whether `block` goes on with the lines `before`, which were one line before wrapping."""
    if len(before) == 1 and len(before[0].text) < 50:
        return False
    return not block.bullet and block.text[:1].islower() and not before[-1].text.endswith((".", "!", "?", ":", ";"))


def _list_items(blocks: list[_Block], dropped: Counter[str]) -> list[str]:
    """The items of a list. If it has bullets or numbers, lines outside it are dropped."""
    bulleted = sum(block.bullet for block in blocks) >= 2
    if len(blocks) == 1 and ";" in blocks[0].text:
        return blocks[0].text.split(";")
    items = []
    for index, block in enumerate(blocks):
        # The first line may lack its bullet, because prompts for completion models end with one.
        if not bulleted or block.bullet or block.indented or index == 0:
            items.append(block.text)
        else:
            dropped["chatter"] += 1
    return items


def _sentences(blocks: list[_Block], dropped: Counter[str]) -> list[str]:
    first = blocks[0]
    if len(blocks) > 1 and _is_title(first, blocks[1]):
        dropped["fragment"] += 1
        blocks = blocks[1:]
    else:
        glued = _GLUED.match(first.text)
        if glued:
            dropped["fragment"] += 1
            blocks = [_Block(first.text[glued.end() :], first.bullet, first.indented), *blocks[1:]]
    return [sentence for block in blocks for sentence in split_sentences(block.text)]


def _is_title(first: _Block, second: _Block) -> bool:
    """Whether the first line is no sentence (a title, or the end of the prompt's phrase) and the second is one."""
    if first.bullet or second.bullet or not _WORD.search(first.text) or _HEADER.search(first.text):
        return False
    return not _END.search(first.text) and not second.text[:1].islower() and _END.search(second.text) is not None


def split_sentences(text: str) -> list[str]:
    """Split at ends of sentences, not at the full stops of numbers ("3.5 cm"), initials or abbreviations."""
    text = _STOP_WITHOUT_SPACE.sub(" ", text)
    sentences, start = [], 0
    for stop in _STOP.finditer(text):
        first = _FIRST.match(text, stop.end())
        following = first[1] if first else ""
        begins_sentence = following.isupper() or following.isdigit() or stop.group(1) is None
        if begins_sentence and not (stop.group(1) == "." and _ends_in_abbreviation(text, start, stop.start())):
            sentences.append(text[start : stop.end()].strip())
            start = stop.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence] or [""]


def _ends_in_abbreviation(text: str, start: int, end: int) -> bool:
    """Whether the last word of `text[start:end]` is an abbreviation."""
    first = end
    while first > max(start, end - _LONGEST_WORD) and (text[first - 1].isalnum() or text[first - 1] in "._"):
        first -= 1
    last = text[first:end]
    return last.lower() in ABBREVIATIONS or "." in last.strip(".") or (len(last) == 1 and last.isupper())


def _is_finished(piece: str) -> bool:
    """Whether the last piece of an answer that ran into the token limit ends with its sentence.

    A full stop after a digit may be a decimal point, so that counts as unfinished.
    """
    return (
        _END.search(piece) is not None
        and not re.search(r"\d\.$", piece)
        and not _ends_in_abbreviation(piece, 0, len(piece) - 1)
    )


def _tidy(piece: str) -> str:
    """Collapse white space; strip quotation marks around the text, stray punctuation before it and lead-ins."""
    text = " ".join("".join(c if c.isprintable() else " " for c in piece).split())
    for _ in range(_MOST_WRAPPED):
        previous, text = text, _unquote(_LEADING_JUNK.sub("", _LEAD_IN.sub("", text, count=1)))
        if text == previous:
            break
    return text


def _unquote(text: str) -> str:
    opening = text[:1]
    closing = _QUOTES.get(opening)
    if closing:
        rest = text.lstrip(opening)
        inside = rest.rstrip(closing)
        if inside != rest and closing not in inside:  # the quotation marks wrap the whole text
            return inside.strip()
        # Apostrophes within words close nothing.
        if not re.search(re.escape(closing) + r"(?!\w)", rest):
            return rest.strip()
    elif text.endswith(('"', "”")) and len(re.findall('["“”]', text)) == 1:
        return text[:-1].strip()
    return text


def _unusable(text: str) -> str | None:
    if not _WORD.search(text):
        return "no words"
    if _REFUSAL.search(text):
        return "refusal"
    if _HEADER.search(text):
        return "header"
    if _CHATTER.search(text) or text.endswith("?"):
        return "chatter"
    return None
