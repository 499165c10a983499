"""Reading JSON that people write or publish: refuses faults that Python's reader ignores silently."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from stages.common.errors import UserError

REMEDY = "correct it or fetch it again"

MOST_BYTES = 1 << 30
"""The largest published description files have 30 MB."""

_TOKEN = re.compile(r'(?P<string>"(?:[^"\\]|\\.)*")(?P<key>\s*:)?|[{}]', re.DOTALL)


class _Twice(Exception):
    """An object has a key twice."""


def read_json(path: Path, remedy: str = REMEDY) -> Any:
    """The value in a JSON file.

    Args:
        remedy: what the user can do about a wrong file; ends every message.

    Raises:
        FileNotFoundError: no such file; the caller knows what makes it.
        UserError: not JSON in UTF-8, an object that has a key twice (Python keeps only the last), or half of a
            character, which no file can hold.
    """
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise UserError(f"{path} has {size:,} bytes; at most {MOST_BYTES:,} are read; {remedy}")
    return parse_json(path.read_bytes(), str(path), remedy)


def parse_json(content: bytes, where: str, remedy: str = REMEDY) -> Any:
    """The value in the bytes of a JSON file, or of one line of a file.

    Args:
        where: what it is called in messages.

    Raises:
        UserError: as `read_json`.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where} is not valid JSON in UTF-8 ({error.reason} at byte {error.start}); {remedy}"
        ) from None
    try:
        found = json.loads(text, object_pairs_hook=_each_key_once)
    except _Twice:
        raise UserError(f"{where}: {_explain_twice(text)}; {remedy}") from None
    except ValueError as error:
        raise UserError(f"{where} is not valid JSON ({error}); {remedy}") from None
    except RecursionError:
        raise UserError(f"{where} is not valid JSON (nested too deeply); {remedy}") from None
    half = _half_of_a_character(text)
    if half:
        raise UserError(f"{where}: {half}; {remedy}")
    return found


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice
    return found


def _explain_twice(text: str) -> str:
    """Name the key that an object has twice, and where. `text` is JSON up to there."""
    objects: list[dict[str, int]] = []
    for token in _TOKEN.finditer(text):
        if token[0] == "{":
            objects.append({})
        elif token[0] == "}":
            objects.pop()
        elif token["key"]:
            key = json.loads(token["string"])
            first = objects[-1].setdefault(key, token.start())
            if first != token.start():
                name = json.dumps(key).strip('"')
                places = f"{_place(text, first)} and {_place(text, token.start())}"
                return f"the key '{name}' is there twice, at {places}, and only one of them would count"
    return "a key is there twice"


def _half_of_a_character(text: str) -> str | None:
    """Name a lone surrogate, which JSON can write and UTF-8 cannot."""
    if not re.search(r"\\u[dD][89a-fA-F]", text):
        return None
    for token in _TOKEN.finditer(text):
        if token["string"]:
            lone = re.search("[\ud800-\udfff]", json.loads(token["string"]))
            if lone:
                return f"the text at {_place(text, token.start())} has half of a character, \\u{ord(lone[0]):04x}"
    return None


def _place(text: str, start: int) -> str:
    return f"line {text.count(chr(10), 0, start) + 1} column {start - text.rfind(chr(10), 0, start)}"
