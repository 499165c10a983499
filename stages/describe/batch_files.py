"""The files of the Batch API: a line for each request that is sent, and for each that was answered or failed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from stages.common.received import MOST_RECEIVED, without_key
from stages.common.replies import MOST_WORDS, TOO_LONG, Unusable, read_reply, server_fault
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


@dataclass
class Results:
    """What is read of an output or error file.

    `seen` are the requests that had a line, `torn` is the number of lines that cannot be read, and `cut` says whether
    the file ends within such a line.
    """

    seen: set[str] = field(default_factory=set)
    torn: int = 0
    cut: bool = False

    def is_short(self, least: int) -> bool:
        """Whether something is missing at the end, if the file must have `least` results."""
        return self.cut or len(self.seen) + self.torn < least

    def read(self, pieces: Iterable[bytes], key: str, most: int) -> Iterator[Result]:
        """The results in the pieces of a file, line by line.

        Args:
            key: of the endpoint, which is taken out of each line.
            most: lines after which nothing more is read.
        """
        for line in islice(lines_of(pieces), most):
            result = _read_line(without_key(line, key)) if len(line) <= MOST_RECEIVED else _too_long(line)
            if result is not None:
                self.seen.add(result.request)
                yield result
            elif not line.endswith(b"\n"):
                self.cut = True
            elif line.strip():
                self.torn += 1


def lines_of(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines in the pieces of a file, with their ends. A longer line is cut after `MOST_RECEIVED` + 1 bytes."""
    line = bytearray()
    for piece in pieces:
        first, *rest = piece.split(b"\n")
        line += first[: MOST_RECEIVED + 1 - len(line)]
        for start in rest:
            yield bytes(line) + b"\n"
            line = bytearray(start[: MOST_RECEIVED + 1])
    if line:
        yield bytes(line)


def _too_long(line: bytes) -> Result | None:
    found = re.search(rb'"custom_id"\s*:\s*"(\w{1,64})"', line[:MOST_WORDS])
    return Result(found[1].decode(), None, TOO_LONG) if found else None


def _read_line(line: bytes) -> Result | None:
    try:
        found = json.loads(line)
        digest, response = str(found["custom_id"])[:200], found.get("response") or {}
        status, body = response.get("status_code", 200), response.get("body") or {}
        error = found.get("error") or (body.get("error") if status != 200 else None) or {}
        error = error if isinstance(error, dict) else {"message": error}
        code, detail = str(error.get("code") or ""), str(error.get("message") or "")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
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
