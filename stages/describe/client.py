"""Asking an OpenAI-compatible endpoint: many requests at once, each answer handed on as it arrives.

Retries, back-off, Retry-After and time-outs are the `openai` client's own.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import openai
from pydantic import BaseModel, ValidationError
from tqdm import tqdm

from stages.common.params import Describe
from stages.describe.log import Reply
from stages.describe.prompts import Api, Request

GIVE_UP_AFTER = 20
"""Requests that fail one after the other, each with all its retries, before the endpoint counts as down."""

SECRET_LENGTH = 8
"""A shorter key is a placeholder for a server without keys ("none", "ollama"), and may be a common word."""

_HOPELESS = {
    401: "the endpoint refuses the key",
    403: "the endpoint refuses access",
    404: "the endpoint does not know the model or the address",
}
"""Answers after which asking on makes no sense."""


class Unusable(Exception):
    """An answer that arrived and cannot be used; its text is the reason."""


@dataclass(frozen=True)
class Failure:
    """A request that got no usable answer: the reason, and what the server said."""

    request: Request
    reason: str
    detail: str = ""


@dataclass
class Outcome:
    """How asking went: failed requests and, where it was given up early, why."""

    received: int = 0
    failures: list[Failure] = field(default_factory=list)
    gave_up: str | None = None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    finish_reason: str | None = None
    message: _Message | None = None
    text: str | None = None


class _Body(BaseModel):
    """The parts of a chat completion or completion that are read here."""

    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None


def read_reply(content: bytes) -> Reply:
    """The answer in the body of a chat completion or completion.

    The client itself does not check what it received, so that is done here, on the bytes.

    Raises:
        Unusable: no whole UTF-8 JSON of that shape, no choices, no text, or held back by a content filter.
    """
    try:
        body = _Body.model_validate_json(content)
    except ValidationError as error:
        broken = error.errors()[0]["type"] == "json_invalid"
        raise Unusable("broken JSON" if broken else "no completion") from None
    if not body.choices:
        raise Unusable("no choices")
    choice = body.choices[0]
    if choice.finish_reason == "content_filter":
        raise Unusable("content filter")
    answer = choice.message.content if choice.message else choice.text
    if answer is None:
        raise Unusable("refused" if choice.message and choice.message.refusal else "no text")
    usage = {key: value for key, value in (body.usage or {}).items() if isinstance(value, int)}
    return Reply(answer, choice.finish_reason, usage)


def scrub(text: str, key: str) -> str:
    """`text` as one line without the key, without parts of it that a server may echo, and without other keys."""
    text = " ".join(text.split())
    if len(key) >= SECRET_LENGTH:
        part = max(4, min(6, len(key) // 2))
        for piece in (key, key[:part], key[-part:]):
            text = re.sub(rf"\S*{re.escape(piece)}\S*", "***", text)
    text = re.sub(r"\bsk-[\w*.…-]+", "***", text)
    return re.sub(r"\S*\*{2,}[^\s.,;:)'\"]*", "***", text)


def ask_all(
    requests: Sequence[Request], settings: Describe, key: str, receive: Callable[[Request, Reply], None]
) -> Outcome:
    """Ask for every request and hand each answer to `receive` as it arrives, in no fixed order.

    Failures are collected, not raised; what `receive` raises is.
    """
    return asyncio.run(_ask_all(requests, settings, key, receive))


async def _ask_all(
    requests: Sequence[Request], settings: Describe, key: str, receive: Callable[[Request, Reply], None]
) -> Outcome:
    outcome = Outcome()
    waiting = iter(requests)
    client = openai.AsyncOpenAI(api_key=key, timeout=settings.timeout, max_retries=settings.max_retries)
    with tqdm(total=len(requests), desc="asking", unit="answer", disable=None) as progress:
        async with client:
            asker = _Asker(client, key, outcome, receive, progress)
            count = min(settings.concurrency, len(requests))
            await asyncio.gather(*(asker.work(waiting) for _ in range(count)))
    return outcome


@dataclass
class _Asker:
    """What the concurrent workers share."""

    client: openai.AsyncOpenAI
    key: str
    outcome: Outcome
    receive: Callable[[Request, Reply], None]
    progress: tqdm
    failed_in_a_row: int = 0

    async def work(self, waiting: Iterator[Request]) -> None:
        """Take requests from the shared iterator until it is empty or asking on makes no sense."""
        for request in waiting:
            await self._ask(request)
            self.progress.update()
            if self.outcome.gave_up is not None:
                return

    async def _ask(self, request: Request) -> None:
        try:
            reply = read_reply(await _send(self.client, request.api, request.body))
        except Unusable as reason:
            self.failed_in_a_row = 0  # the endpoint is up
            self._fail(request, str(reason))
        except openai.APIStatusError as error:
            self._fail_status(request, error)
        except openai.APITimeoutError:
            self._count_failed(request, "time-out")
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            self._count_failed(request, "no connection", str(cause) or type(cause).__name__)
        except openai.OpenAIError as error:
            self._count_failed(request, type(error).__name__, str(error))
        else:
            self.failed_in_a_row = 0
            self.outcome.received += 1
            self.receive(request, self._without_key(reply))

    def _fail_status(self, request: Request, error: openai.APIStatusError) -> None:
        status = error.status_code
        if error.code == "content_filter":
            self._fail(request, "content filter")
            return
        self._count_failed(request, f"HTTP {status}", error.message.removeprefix(f"Error code: {status} - "))
        if status in _HOPELESS:
            self._give_up(_HOPELESS[status])
        elif error.code == "insufficient_quota":
            self._give_up("the account's quota is used up")

    def _count_failed(self, request: Request, reason: str, detail: str = "") -> None:
        """Note a failure that may be the endpoint's and not the request's."""
        self._fail(request, reason, detail)
        self.failed_in_a_row += 1
        if self.failed_in_a_row >= GIVE_UP_AFTER:
            self._give_up(f"{self.failed_in_a_row} requests in a row failed")

    def _fail(self, request: Request, reason: str, detail: str = "") -> None:
        self.outcome.failures.append(Failure(request, reason, scrub(detail, self.key)[:200]))

    def _give_up(self, why: str) -> None:
        self.outcome.gave_up = self.outcome.gave_up or why

    def _without_key(self, reply: Reply) -> Reply:
        """The reply, safe to log whatever a server wrote into it."""
        if len(self.key) < SECRET_LENGTH:
            return reply
        return Reply(reply.answer.replace(self.key, "***"), reply.finish_reason, reply.usage)


async def _send(client: openai.AsyncOpenAI, api: Api, body: dict[str, Any]) -> bytes:
    """The body of the answer, as bytes."""
    # Everything goes through extra_body, so that settings which this client version does not know pass as well.
    if api == "chat":
        chat = client.chat.completions.with_raw_response
        return (await chat.create(model=body["model"], messages=body["messages"], extra_body=body)).content
    completions = client.completions.with_raw_response
    return (await completions.create(model=body["model"], prompt=body["prompt"], extra_body=body)).content


def summarise(failures: Sequence[Failure]) -> str:
    """`2 x HTTP 500 (class 'x': overloaded), 1 x content filter (class 'y')`, most frequent first."""
    parts = []
    for reason, count in Counter(failure.reason for failure in failures).most_common():
        first = next(failure for failure in failures if failure.reason == reason)
        detail = f": {first.detail}" if first.detail else ""
        parts.append(f"{count} x {reason} (class '{first.request.name}'{detail})")
    return ", ".join(parts)
