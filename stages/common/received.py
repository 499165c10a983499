"""What a server sends, made safe before anything else reads it: bounded in size and without the key.

Every response goes through here, so that no field of it (an answer, a name, an id, an error's code) can carry the key
into a log, a file or a message.
"""

from __future__ import annotations

import base64
import html
import json
import re
from functools import lru_cache
from urllib.parse import quote, quote_plus

import httpx2  # what the openai client is built on

MOST_RECEIVED = 8 * 2**20
"""Of a response, or of a line of a batch's results; the rest is not kept."""

SECRET_LENGTH = 8
"""A shorter key is a placeholder for a server without keys ("none", "ollama"), and may be a common word."""

_SAID = 4000  # characters of what a server says that may reach a message
_KEPT = ("content-type", "retry-after", "retry-after-ms", "x-should-retry")  # headers that the client reads
_STRING = re.compile(r'"(?:[^"\\]|\\.?)*+(?:"|\Z)', re.DOTALL)  # always matches from a quotation mark on, so is linear


def rebuilt(response: httpx2.Response, content: bytes, key: str) -> httpx2.Response:
    """The response with this content, both without the key."""
    headers = {
        name: without_key(value.encode(), key).decode() for name, value in response.headers.items() if name in _KEPT
    }
    body = without_key(content[: MOST_RECEIVED + 1], key)
    return httpx2.Response(response.status_code, headers=headers, content=body, request=response.request)


def without_key(content: bytes, key: str) -> bytes:
    """`content` with `***` in place of the key: plain, in a URL's or HTML's escapes, in base64, or escaped in JSON."""
    if len(key) < SECRET_LENGTH:
        return content
    text = content.decode(errors="surrogateescape")
    if "\\" in text:
        text = _STRING.sub(lambda string: _escaped_again(string[0], key), text)
    return _replace(text, key).encode(errors="surrogateescape")


def _escaped_again(string: str, key: str) -> str:
    """A JSON string without the key; as it is if the key is not in it."""
    if "\\" not in string:
        return string
    try:
        said = json.loads(string, strict=False)
    except ValueError:
        return string
    clean = _replace(said, key)
    return string if clean == said else json.dumps(clean)


def _replace(text: str, key: str) -> str:
    forms, lower = _forms(key), text.lower()
    if not any(form in lower for form in forms):
        return text
    return re.sub("|".join(map(re.escape, forms)), "***", text, flags=re.IGNORECASE)


@lru_cache(maxsize=8)
def _forms(key: str) -> tuple[str, ...]:
    """What a server may make of the key, in lower case, the longest first."""
    forms = {key, quote(key, safe=""), quote_plus(key), html.escape(key), json.dumps(key)[1:-1], key.encode().hex()}
    for before, first in enumerate((0, 2, 3)):  # in base64 it depends on the bytes before and after the key
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            forms.add(encode(bytes(before) + key.encode()).decode().rstrip("=")[first:-1])
    return tuple(sorted({form.lower() for form in forms}, key=len, reverse=True))


def scrub(text: str, key: str) -> str:
    """`text` as one line without the key, parts of it, or other keys, which a server may echo."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text[:_SAID]).split())
    if len(key) >= SECRET_LENGTH:
        part = max(4, min(6, len(key) // 2))
        for piece in (key, key[:part], key[-part:]):
            text = re.sub(rf"\S*{re.escape(piece)}\S*", "***", text)
    text = re.sub(r"\bsk-[\w*.…-]+", "***", text)
    return re.sub(r"\S*\*{2,}[^\s.,;:)'\"]*", "***", text)
