"""The files of the Batch API: a line for each request that is sent, and for each that was answered or failed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from stages.common.replies import Unusable, read_reply, server_fault
from stages.common.requests import Request
from stages.common.responses import Reply

MOST_REQUESTS = 50_000  # of a batch, by OpenAI's rules
MOST_BYTES = 190_000_000  # of its file, below OpenAI's 200 MB


def split(requests: Iterable[Request]) -> Iterator[list[Request]]:
    """Parts of `requests`, in order, each small enough for a batch."""
    part: list[Request] = []
    size = 0
    for request in requests:
        length = len(line_of(request))
        if part and (len(part) == MOST_REQUESTS or size + length > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(request)
        size += length
    if part:
        yield part


def line_of(request: Request) -> bytes:
    """A request as a line of a batch's input file."""
    line = {"custom_id": request.digest, "method": "POST", "url": url_of(request), "body": request.body}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def url_of(request: Request) -> Any:  # Any, because the client's type is a literal of all its endpoints
    return "/v1/chat/completions" if request.api == "chat" else "/v1/completions"


@dataclass(frozen=True)
class Result:
    """What came of the request of this digest: `reply`, or the reason why there is none."""

    request: str
    reply: Reply | None
    reason: str = ""
    detail: str = ""
    usage: dict[str, int] = field(default_factory=dict)


def read_results(content: bytes) -> tuple[list[Result], int]:
    """The results in an output or error file, and how many of its lines are torn or of another kind."""
    lines = [line for line in content.split(b"\n") if line.strip()]
    results = [result for result in map(_read_line, lines) if result is not None]
    return results, len(lines) - len(results)


def _read_line(line: bytes) -> Result | None:
    try:
        found = json.loads(line)
        digest, response = str(found["custom_id"]), found.get("response") or {}
        status, body = response.get("status_code", 200), response.get("body") or {}
        error = found.get("error") or (body.get("error") if status != 200 else None) or {}
        error = error if isinstance(error, dict) else {"message": error}
        code, detail = str(error.get("code") or ""), str(error.get("message") or "")
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if status != 200 or error:
        return Result(digest, None, "content filter" if code == "content_filter" else code or f"HTTP {status}", detail)
    content = json.dumps(body).encode()
    fault = server_fault(content)
    if fault is not None:
        return Result(digest, None, f"HTTP {fault[0]}", fault[1]["message"])
    try:
        return Result(digest, read_reply(content))
    except Unusable as reason:
        return Result(digest, None, str(reason), reason.detail, reason.usage)
