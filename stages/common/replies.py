"""What a server sent in reply to a request: the answer in it, or why there is none."""

from __future__ import annotations

import html
import json
import re
from typing import Any

from stages.common.received import MOST_RECEIVED
from stages.common.responses import MOST_ANSWER, Reply, plausible

TOO_LONG = "a response above 8 MiB"
ANSWER_TOO_LONG = "an answer above 1 MiB"
NO_ANSWER = (
    *("HTML and no answer", "an event stream and no answer", "broken JSON", "no completion", "no choices"),
    *(TOO_LONG, ANSWER_TOO_LONG),
)
"""Reasons that mean that the endpoint does not work, or is not one."""

FAULTS = ("error", "abort")
"""Values of `finish_reason` that mean that the server failed, not the model."""

CUT = ("length", "max_tokens", "max_output_tokens", "model_length")
"""Values of `finish_reason` for a reached token limit; OpenAI's is the first."""

BAD_GATEWAY = 502

MOST_COUNTS = 32  # of tokens, of one reply

MOST_WORDS = 2**18
"""Bytes of a reply without an answer in which the server's words are looked for."""

_UNSEEN = re.compile(r"<(script|style)\b.*?(?:</\1>|\Z)|<!--.*?(?:-->|\Z)|<[^<>]*>", re.DOTALL | re.IGNORECASE)
_COUNT = re.compile(r"[a-z_]{1,64}", re.IGNORECASE)  # the name of a count of tokens
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class Unusable(Exception):
    """A reply that arrived and cannot be used.

    Its text is the reason. `usage` is what it cost, if known. `detail` is what the server said, and may contain the
    key.
    """

    def __init__(self, reason: str, usage: dict[str, int] | None = None, detail: str = "") -> None:
        super().__init__(reason)
        self.usage = usage or {}
        self.detail = detail


def read_reply(content: bytes) -> Reply:
    """The answer in the body of a chat completion or completion.

    The client does not check what it receives, so this is done here, on the bytes. Where the limit of tokens was
    reached before the answer began (`finish_reason` "length"), servers send null, an empty string or parts without
    text. All of these are an empty answer.

    Raises:
        Unusable: no whole UTF-8 JSON of that shape, no choices, no text, too long, or held back by a content filter.
    """
    if len(content) > MOST_RECEIVED:
        raise Unusable(TOO_LONG)
    body = _body(content)
    usage = _usage(body.get("usage"))
    choices = body.get("choices")
    if not choices:
        raise Unusable("no choices", usage, words(content))
    if not isinstance(choices, list) or not isinstance(choices[0], dict):
        raise Unusable("no completion", usage, words(content))
    choice = choices[0]
    finish_reason = _finish_reason(choice)
    if finish_reason == "content_filter":
        raise Unusable("content filter", usage)
    said = _said(choice)
    answer = _text(said.get("content"))
    if not answer and (said.get("refusal") or _refuses(said.get("content"))):
        raise Unusable("refused", usage)
    if answer is None:
        if finish_reason != "length":
            raise Unusable("no text", usage)
        answer = ""
    if len(answer.encode()) > MOST_ANSWER:
        raise Unusable(ANSWER_TOO_LONG, usage)
    return Reply(answer, finish_reason, usage)


def _said(choice: dict[str, Any]) -> dict[str, Any]:
    """The message of a choice; of a completion, its text as one."""
    message = choice.get("message")
    return message if isinstance(message, dict) else {"content": choice.get("text")}


def _finish_reason(choice: dict[str, Any]) -> str | None:
    """Why the answer ended, in lower case; "length" for a limit of tokens, whatever the server calls it."""
    reason = choice.get("finish_reason")
    if not isinstance(reason, str):
        return None
    return CUT[0] if reason.lower() in CUT else reason.lower()[:40]


def server_fault(content: bytes) -> tuple[int, dict[str, Any]] | None:
    """A fault that a server reports with HTTP 200: the status that it should have sent, and `{message, code}`."""
    try:
        body = _body(content)
    except Unusable:
        return None
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    error = body.get("error") or (body if body.get("object") == "error" else None)
    if choice:
        error = choice.get("error") or error
        if _finish_reason(choice) in FAULTS:
            error = error or "the server failed and does not say why"
        elif _text(_said(choice).get("content")):
            return None
    if not error:
        return None
    said = error if isinstance(error, dict) else {"message": error}
    code = str(said.get("code"))
    status = int(code) if re.fullmatch("[45][0-9]{2}", code) else BAD_GATEWAY
    return status, {"message": _some_text(said.get("message") or said), "code": said.get("code")}


def words(content: bytes) -> str:
    """The readable text of a server's reply: an error's message, or the text of a page or stream."""
    text = content[:MOST_WORDS].decode(errors="replace").removeprefix("\ufeff").strip()
    if _is_stream(text):
        found = re.search(r"^data:.*\berror\b.*$", text, re.MULTILINE | re.IGNORECASE)
        return _message(found[0].removeprefix("data:")) if found else text
    if text.startswith("<"):
        return html.unescape(_UNSEEN.sub(" ", text)).strip()
    return _message(text)


def _body(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        start = content.decode(errors="replace").removeprefix("\ufeff").lstrip()
        if start.startswith("<"):
            reason = "HTML and no answer"
        else:
            reason = "an event stream and no answer" if _is_stream(start) else "broken JSON"
        raise Unusable(reason, detail=words(content)) from None
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    if not isinstance(body, dict):
        raise Unusable("no completion", detail=words(content))
    return body


def _is_stream(text: str) -> bool:
    return re.match(r"(?:data|event|id|retry)?:", text) is not None


def _message(text: str) -> str:
    """The message in a JSON object that reports an error; the text itself where it is another."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for key in ("error", "errors", "message", "msg", "detail"):
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    return _some_text(found)


def _some_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _usage(found: Any) -> dict[str, int]:
    """Counts of tokens. Some servers send floats. Some that do not count send 0, which no prompt has."""
    named = {name: plausible(count) for name, count in found.items()} if isinstance(found, dict) else {}
    usage = {name: count for name, count in named.items() if count is not None and _COUNT.fullmatch(name)}
    if usage.get("prompt_tokens") == 0:
        del usage["prompt_tokens"]
    return dict(list(usage.items())[:MOST_COUNTS])


def _text(content: Any) -> str | None:
    """The text of a message; of one in parts, the text parts, without thoughts, images and calls of tools."""
    if isinstance(content, dict):
        content = [content]
    if isinstance(content, list):
        pieces = [piece for piece in map(_part, content) if piece is not None]
        content = "".join(pieces) if pieces else None
    if not isinstance(content, str):
        return None
    return _LONE_SURROGATE.sub("\ufffd", content)  # half of a character, which no file can hold


def _part(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") in ("text", "output_text"):
        text = part.get("text")
        text = text.get("value") if isinstance(text, dict) else text
        return text if isinstance(text, str) else None
    return None


def _refuses(content: Any) -> bool:
    return isinstance(content, list) and any(isinstance(part, dict) and part.get("refusal") for part in content)
