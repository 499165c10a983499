"""Asking an OpenAI-compatible endpoint: many requests at once, each answer handed on as it arrives.

Retries, back-off, Retry-After and time-outs are the `openai` client's own. The client recognises a fault only by its
HTTP status. So a fault that a server reports with HTTP 200 gets the status that it should have had.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx2  # what the openai client is built on
import openai
from tqdm import tqdm

from stages.common import address, interrupts
from stages.common.errors import UserError
from stages.common.received import MOST_RECEIVED, rebuilt, scrub
from stages.common.replies import NO_ANSWER, Unusable, read_reply, server_fault, words
from stages.common.requests import Api, Asked
from stages.common.responses import LogWriter

NO_KEY = "none"
"""Sent as the key to a server without keys, such as Ollama or vLLM."""

WAITS_AT_MOST = 30.0
"""Seconds that answers in flight have to arrive after a signal."""

GIVE_UP_AFTER = 20
"""Consecutive failed requests, each with all its retries, after which the endpoint counts as down."""

NOT_TAKEN = ("HTTP 400", "HTTP 422")
"""Reasons why a server refuses a request: an unknown setting, or a conversation that is too long."""

_HOPELESS = {
    401: "the endpoint refuses the key",
    403: "the endpoint refuses access",
    404: "the endpoint does not know the model or the address",
}
"""Statuses after which more requests make no sense."""


class Asking(Protocol):
    """How requests are sent: how many at once, seconds for each, and retries by the client."""

    @property
    def concurrency(self) -> int: ...

    @property
    def timeout(self) -> float: ...

    @property
    def max_retries(self) -> int: ...


@dataclass(frozen=True)
class Failure:
    """A request that got no usable answer: the reason, and what the server said."""

    request: Asked
    reason: str
    detail: str = ""


@dataclass
class Outcome:
    """The outcome: failed requests, and why asking stopped early, if it did."""

    received: int = 0
    failures: list[Failure] = field(default_factory=list)
    gave_up: str | None = None


def api_key(
    missing: str,
    variable: str = "OPENAI_API_KEY",
    url: str | None = None,
    setting: str = address.BASE_URL,
    *,
    must_be_set: bool = False,
) -> str:
    """The key from the environment, or NO_KEY for a server other than OpenAI's where none is set.

    The address is checked as well, because the client would retry a wrong one.

    Args:
        missing: the whole message for when there is no key.
        url: the endpoint's address, if it is not OPENAI_BASE_URL.
        setting: where the address is given.
        must_be_set: whether the user said that the server wants the key of this variable.

    Raises:
        UserError: no key where one is wanted, a key that cannot be sent, or an address that cannot be asked.
    """
    key = os.environ.get(variable, "").strip()
    given = os.environ.get(address.BASE_URL, "").strip() if url is None else url
    if not key and (must_be_set or not given or address.is_openai(given)):
        raise UserError(missing)
    if not key.isascii() or not key.isprintable():
        raise UserError(f"{variable} has characters that cannot be sent; copy the key again")
    if given or url is not None:
        address.check_address(given, setting, key, variable)
    address.check_headers()
    return key or NO_KEY


def explain(error: openai.OpenAIError, key: str) -> tuple[str, str]:
    """An error of the client's as a reason ("HTTP 500") and what the server said, without the key."""
    if isinstance(error, openai.APIStatusError):
        if error.code == "content_filter":
            return "content filter", ""
        status = error.status_code
        said = error.message.removeprefix(f"Error code: {status} - ")
        if not isinstance(error.body, dict):  # the client drops a page's text
            said = words(error.response.content) or "no words"
        return f"HTTP {status}", scrub(said, key)[:200]
    cause = error.__cause__ or error
    if isinstance(error, openai.APITimeoutError):
        return "time-out", ""
    reason = "no connection" if isinstance(error, openai.APIConnectionError) else type(error).__name__
    return reason, scrub(str(cause) or type(cause).__name__, key)[:200]


def hopeless(error: openai.OpenAIError) -> str | None:
    """Why asking should stop after `error`; None if it should not."""
    if not isinstance(error, openai.APIStatusError):
        return None
    if error.code == "insufficient_quota":
        return "the account's quota is used up"
    if 300 <= error.status_code < 400:
        return "the endpoint redirects to another address"
    return _HOPELESS.get(error.status_code)


class _HttpClient(openai.DefaultAsyncHttpxClient):
    """Limits the whole exchange. httpx's time-outs limit each wait, so a server that drips bytes would never end.

    What arrives is bounded in size as well, and freed from the key.
    """

    def __init__(self, seconds: float, key: str, finish: interrupts.Finishing) -> None:
        with address.using_environment():
            super().__init__()
        self._seconds = seconds
        self._key = key
        self._finish = finish
        self.sending: set[asyncio.Task[Any] | None] = set()
        """Tasks whose request is in flight."""

    async def send(self, request: httpx2.Request, **kwargs: Any) -> httpx2.Response:
        if self._finish.signalled:
            raise asyncio.CancelledError  # also where the client would send a failed request again
        options = kwargs | {"stream": True, "follow_redirects": False}
        task = asyncio.current_task()
        self.sending.add(task)
        try:
            async with asyncio.timeout(self._seconds):
                response, followed = await super().send(request, **options), 0
                while (following := address.next_request(response, followed)) is not None:
                    await response.aclose()
                    response, followed = await super().send(following, **options), followed + 1
                content = bytearray()
                try:
                    async for piece in response.aiter_bytes():
                        content += piece
                        if len(content) > MOST_RECEIVED:
                            break
                finally:
                    await response.aclose()
                return honest(rebuilt(response, bytes(content), self._key))
        except TimeoutError:
            raise httpx2.ReadTimeout("") from None  # which the client knows, and retries
        finally:
            self.sending.discard(task)


def honest(response: httpx2.Response) -> httpx2.Response:
    """The response with the HTTP status that its content should have; the client retries it by that."""
    fault = server_fault(response.content) if response.status_code == httpx2.codes.OK else None
    if fault is None:
        return response
    status, error = fault
    kept = {name: value for name, value in response.headers.items() if name in ("retry-after", "retry-after-ms")}
    content = json.dumps({"error": error}).encode()
    return httpx2.Response(status, headers=kept, content=content, request=response.request)


def ask_all(
    requests: Sequence[Asked],
    settings: Asking,
    key: str,
    log: LogWriter,
    base_url: str | None = None,
    own_faults: Collection[str] = (),
    final: Collection[str] = (),
) -> Outcome:
    """Ask for every request and append each answer to `log` as it arrives, in no fixed order.

    Failures are collected, not raised; errors of `log` are raised. After a signal nothing more is sent, and the answers
    in flight have until the request's time-out, or WAITS_AT_MOST, to arrive and be logged.

    Args:
        base_url: the endpoint's address; None is that of OPENAI_BASE_URL.
        own_faults: reasons that are the request's fault and do not count towards the endpoint being down.
        final: reasons of replies without an answer that are logged even where the server counts no tokens.
    """
    outcome = Outcome()
    asker = _Asker(key, outcome, log, {"content filter", *own_faults}, final)
    seconds = min(settings.timeout, WAITS_AT_MOST)
    line = (
        f"interrupted: no more is asked, answers in flight have {seconds:.0f} s to arrive; a second signal ends at "
        "once, and a rerun asks only for the rest"
    )
    with interrupts.finishing(line, seconds) as finish:
        asyncio.run(_ask_all(requests, settings, asker, base_url, finish))
    return outcome


async def _ask_all(
    requests: Sequence[Asked], settings: Asking, asker: _Asker, base_url: str | None, finish: interrupts.Finishing
) -> None:
    waiting = iter(requests)
    http_client = _HttpClient(settings.timeout, asker.key, finish)
    client = openai.AsyncOpenAI(
        **address.client_arguments(asker.key, base_url),
        timeout=settings.timeout,
        max_retries=settings.max_retries,
        http_client=http_client,
    )
    with tqdm(total=len(requests), desc="asking", unit="answer", disable=None) as progress:
        async with client:
            count = min(settings.concurrency, len(requests))
            tasks = [asyncio.create_task(asker.work(client, waiting, progress, finish)) for _ in range(count)]
            _stop_at_signal(finish, tasks, http_client)
            try:
                await asyncio.gather(*tasks)
            finally:  # if the log cannot be written, nothing more is sent
                for task in tasks:
                    task.cancel()


def _stop_at_signal(
    finish: interrupts.Finishing, tasks: Sequence[asyncio.Task[None]], http_client: _HttpClient
) -> None:
    """At a signal, end the tasks that have nothing in flight, and the others when their time is up."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for task in set(tasks) - http_client.sending:
            task.cancel()
        for task in tasks:
            loop.call_later(finish.seconds, task.cancel)

    finish.wake = lambda: loop.call_soon_threadsafe(stop)
    if finish.signalled:  # before there was anything to wake
        stop()


@dataclass
class _Asker:
    """What the concurrent workers share."""

    key: str
    outcome: Outcome
    log: LogWriter
    own_faults: Collection[str]
    final: Collection[str]
    failed_in_a_row: int = 0
    stopped: bool = False
    """Whether an answer could not be logged."""

    async def work(
        self, client: openai.AsyncOpenAI, waiting: Iterator[Asked], progress: tqdm, finish: interrupts.Finishing
    ) -> None:
        """Take requests from the shared iterator until it is empty or asking should stop."""
        try:
            for request in waiting:
                if self.stopped:
                    return
                await self._ask(client, request)
                progress.update()
                if self.outcome.gave_up is not None or finish.signalled:
                    return
        except UserError:
            self.stopped = True
            raise
        except asyncio.CancelledError:
            if not finish.signalled:
                raise

    async def _ask(self, client: openai.AsyncOpenAI, request: Asked) -> None:
        try:
            reply = read_reply(await _send(client, request.api, request.body))
        except Unusable as reason:
            self._lose(request, str(reason), scrub(reason.detail, self.key)[:200])
            if reason.usage or str(reason) in self.final:
                self.log.add_unusable(request.digest, request.model, str(reason), reason.usage)
        except openai.OpenAIError as error:
            self._fail(request, error)
        else:
            self.failed_in_a_row = 0
            self.outcome.received += 1
            self.log.add_answer(request, reply)

    def _fail(self, request: Asked, error: openai.OpenAIError) -> None:
        reason, detail = explain(error, self.key)
        self.outcome.failures.append(Failure(request, reason, detail))
        if reason not in self.own_faults:
            self._count_failure(hopeless(error))

    def _lose(self, request: Asked, reason: str, detail: str) -> None:
        """Note a reply without an answer."""
        self.outcome.failures.append(Failure(request, reason, detail))
        if reason in NO_ANSWER:
            self._count_failure(None)
        else:
            self.failed_in_a_row = 0

    def _count_failure(self, hopeless: str | None) -> None:
        self.failed_in_a_row += 1
        many = self.failed_in_a_row >= GIVE_UP_AFTER
        why = hopeless or (f"{self.failed_in_a_row} requests in a row failed" if many else None)
        self.outcome.gave_up = self.outcome.gave_up or why


async def _send(client: openai.AsyncOpenAI, api: Api, body: dict[str, Any]) -> bytes:
    """The body of the answer, as bytes."""
    # Everything goes through extra_body, so that settings which this client version does not know pass as well.
    if api == "chat":
        chat = client.chat.completions.with_raw_response
        return (await chat.create(model=body["model"], messages=body["messages"], extra_body=body)).content
    completions = client.completions.with_raw_response
    return (await completions.create(model=body["model"], prompt=body["prompt"], extra_body=body)).content


def summarise(failures: Sequence[Failure], kind: str = "class") -> str:
    """`2 x HTTP 500 (class 'x': overloaded), 1 x content filter (class 'y')`, most frequent first."""
    parts = []
    for reason, count in Counter(failure.reason for failure in failures).most_common():
        first = next(failure for failure in failures if failure.reason == reason)
        detail = f": {first.detail}" if first.detail else ""
        parts.append(f"{count} x {reason} ({kind} '{first.request.name}'{detail})")
    return ", ".join(parts)
