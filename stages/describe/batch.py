"""Asking through the Batch API: submit, wait, merge; the next run continues a killed one.

A batch is found again by its id in the response log. If the run is killed before the id is logged, the batch is found
by its
metadata, `{"bifta": digest of its requests}`, among those that the endpoint lists. So none is submitted twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import httpx2  # what the openai client is built on
import openai
from openai.types import Batch
from tqdm import tqdm

from stages.common import interrupts, tables
from stages.common.endpoint import WAITS_AT_MOST, Failure, Outcome, explain, honest, hopeless, scrub, without_key
from stages.common.errors import UserError
from stages.common.params import Describe
from stages.common.replies import BAD_GATEWAY, words
from stages.common.requests import Request
from stages.common.responses import LogWriter
from stages.describe.batch_files import Result, line_of, read_results, split, url_of

ENDED = ("completed", "failed", "expired", "cancelled")
METADATA_KEY = "bifta"
KEPT_SECONDS = 30 * 24 * 3600
"""Older batches are ignored: their output files are gone."""

FETCHES = 3  # of a file of results whose lines are not whole

GIVE_UP_AFTER = 10
"""Consecutive failed looks at a batch, each with all the client's retries."""


class BrokenAnswer(openai.OpenAIError):
    """An answer about files or batches that is not whole JSON, or not of the expected shape."""


PASSING = (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError, BrokenAnswer)
"""Failures that may pass."""


class _HttpClient(openai.DefaultHttpxClient):
    """Gives faults that are reported with HTTP 200, and pages in place of JSON, the status that they should have."""

    def send(self, request: httpx2.Request, **kwargs: Any) -> httpx2.Response:
        interrupts.check()
        response = super().send(request, **kwargs)
        if request.url.path.endswith("/content"):  # a file of results, with the faults of single requests
            return response
        if response.status_code == httpx2.codes.OK and response.content.lstrip().startswith(b"<"):
            error = {"message": words(response.content)}
            return httpx2.Response(BAD_GATEWAY, json={"error": error}, request=response.request)
        return honest(response)


@contextmanager
def _reading() -> Iterator[None]:
    """Around calls of the client, which checks nothing that it receives: half an answer fails where it is used."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, AssertionError):
        raise BrokenAnswer("the answer was not whole") from None


def ask_in_batches(requests: Sequence[Request], settings: Describe, key: str, log: LogWriter) -> Outcome:
    """Collect the log's open batches, and where `describe.mode` is batch submit those of `requests` in none of them.

    Failures of single requests are collected; a rerun asks for them again.

    Raises:
        UserError: the endpoint cannot be reached or has no Batch API; what was submitted is continued by a rerun.
    """
    with openai.OpenAI(
        api_key=key, timeout=settings.timeout, max_retries=settings.max_retries, http_client=_HttpClient()
    ) as client:
        batches = _Batches(client, settings, key, log, {request.digest: request for request in requests})
        try:
            if settings.mode == "batch":
                under_way = log.records.under_way()
                for part in split(request for request in requests if request.digest not in under_way):
                    batches.submit(part)
            batches.collect()
        except openai.OpenAIError as error:
            batches.refuse(error)
    return batches.outcome


@dataclass
class _Batches:
    """The batches of one response log; `wanted` are the requests without an answer, by digest."""

    client: openai.OpenAI
    settings: Describe
    key: str
    log: LogWriter
    wanted: dict[str, Request]
    outcome: Outcome = field(default_factory=Outcome)
    failed_in_a_row: int = 0

    def submit(self, part: list[Request]) -> None:
        """Submit a batch, or take one that an interrupted run submitted, and note its id in the log."""
        digests = [request.digest for request in part]
        of = tables.digest(sorted(digests))
        with self._finishing("the batch that is being submitted"):
            batch = self._find(of) or self._create(part, of)
            self.log.add_batch(batch.id, self.settings.model, digests)

    def _finishing(self, what: str) -> AbstractContextManager[object]:
        """Lets the request in flight be answered and logged after a signal. Nothing more is sent."""
        seconds = min(self.settings.timeout, WAITS_AT_MOST)
        line = (
            f"interrupted: no more is sent, {what} has {seconds:.0f} s; a second signal ends at once, and a rerun goes "
            "on with the batches under way"
        )
        return interrupts.held(line, seconds)

    def _find(self, of: str) -> Batch | None:
        """A batch of these requests that the log does not know."""
        with _reading():
            for batch in self.client.batches.list(limit=100):
                if batch.created_at < time.time() - KEPT_SECONDS:
                    break  # the newest come first
                known = batch.id in self.log.records.batches or batch.status == "failed"
                if not known and (batch.metadata or {}).get(METADATA_KEY) == of:
                    return batch
        return None

    def _create(self, part: list[Request], of: str) -> Batch:
        with _reading():
            file = self.client.files.create(file=(f"{of}.jsonl", b"".join(map(line_of, part))), purpose="batch").id
        # No retries by the client: a submission whose answer was lost may have been taken, so it is looked for first.
        once = self.client.with_options(max_retries=0)
        for attempt in range(self.settings.max_retries + 1):
            try:
                with _reading():
                    batch = once.batches.create(
                        input_file_id=file,
                        endpoint=url_of(part[0]),
                        completion_window="24h",
                        metadata={METADATA_KEY: of},
                    )
                    assert isinstance(batch.id, str)
                    return batch
            except PASSING as error:
                if attempt == self.settings.max_retries or hopeless(error):
                    raise
                interrupts.sleep(_pause(error, attempt))
            found = self._find(of)
            if found:
                return found
        raise AssertionError("unreachable")

    def collect(self) -> None:
        """Wait for the open batches that hold wanted requests, and merge every one that has ended."""
        sizes = {name: len(batch.requests) for name, batch in self.log.records.open_batches().items()}
        for name, size in sizes.items():
            every = f"{self.settings.batch_poll:g} s"
            print(f"{self.log.path}: batch {name} of {size} requests, looked at every {every}", flush=True)
        done = dict.fromkeys(sizes, 0)
        waiting = list(sizes)
        with tqdm(total=sum(sizes.values()), desc="waiting", unit="answer", disable=None) as progress:
            while waiting:
                for name in list(waiting):
                    batch = self._look_at(name)
                    if batch is None:
                        continue
                    done[name] = batch.request_counts.completed if batch.request_counts else 0
                    if batch.status in ENDED:
                        with self._finishing("a finished batch"):
                            self.merge(batch)
                    if batch.status in ENDED or not self.wanted.keys() & self.log.records.batches[name].requests:
                        waiting.remove(name)
                progress.n = sum(done.values())
                progress.refresh()
                if waiting:
                    time.sleep(self.settings.batch_poll)

    def _look_at(self, name: str) -> Batch | None:
        """The batch as it is now; None if the look failed and a later one may succeed."""
        try:
            with _reading():
                batch = self.client.batches.retrieve(name)
                assert isinstance(batch.status, str)
        except PASSING as error:
            self.failed_in_a_row += 1
            if self.failed_in_a_row >= GIVE_UP_AFTER or hopeless(error):
                raise
            return None
        self.failed_in_a_row = 0
        return batch

    def merge(self, batch: Batch) -> None:
        """Take everything that came of an ended batch into the log, and note that it is done with."""
        problems = (batch.errors.data if batch.errors else None) or []
        detail = scrub(" ".join(problem.message or "" for problem in problems[:1]), self.key)[:200]
        reasons: dict[str, tuple[str, str]] = {}
        counts = batch.request_counts
        for file, least in ((batch.output_file_id, counts.completed if counts else 0), (batch.error_file_id, 0)):
            for result in self._fetch(file, least) if file else []:
                self._take(batch.id, result)
                reasons[result.request] = scrub(result.reason, self.key)[:80], scrub(result.detail, self.key)[:200]
        self.log.add_ended(batch.id, batch.status)
        silent = "not among the batch's results" if batch.status == "completed" else f"batch {batch.status}"
        for digest in self.log.records.batches[batch.id].requests:
            if digest in self.wanted and digest not in self.log.records.answers:
                reason = reasons.get(digest, (silent, detail))
                self.outcome.failures.append(Failure(self.wanted[digest], *reason))

    def _fetch(self, file: str, least: int) -> list[Result]:
        """The results in a file; they are paid, so one with torn lines or less than `least` is fetched again first."""
        for _ in range(FETCHES):
            results, torn = read_results(self.client.files.content(file).content)
            if not torn and len(results) >= least:
                break
        return results

    def _take(self, batch: str, result: Result) -> None:
        """Take what was paid into the log. Flushed with the record that the batch has ended, which comes after it."""
        model = self.log.records.batches[batch].model
        if result.reply is None:
            if result.usage:
                self.log.add_unusable(result.request, model, result.reason, result.usage, batch)
        elif result.request not in self.log.records.answers:
            reply = without_key(result.reply, self.key)
            if result.request in self.wanted:
                self.outcome.received += 1
                self.log.add_answer(self.wanted[result.request], reply, sync=False)
            else:  # the prompts have changed since: kept, in case they change back
                self.log.add_answer_to(result.request, model, reply, sync=False)

    def refuse(self, error: openai.OpenAIError) -> NoReturn:
        """Say what failed and how to go on."""
        reason, detail = explain(error, self.key)
        why = f"{reason}{f': {detail}' if detail else ''}"
        batches = ", ".join(self.log.records.open_batches())
        if batches:
            remedy = f"batches under way: {batches}; a rerun with the same key and OPENAI_BASE_URL goes on"
            if isinstance(error, openai.NotFoundError):
                remedy += f"; to give one up, delete its line in {self.log.path}"
        elif isinstance(error, openai.APIStatusError) and error.status_code in (404, 405, 501):
            remedy = "this endpoint may have no Batch API: set describe.mode to direct in params.yaml"
        else:
            remedy = hopeless(error) or "a rerun submits what was not"
        raise UserError(f"asking in batches stopped ({why}); {remedy}") from None


def _pause(error: openai.OpenAIError, attempt: int) -> float:
    """Seconds to wait after a refused submission: what the endpoint asks for, or ever longer."""
    asked = error.response.headers.get("retry-after", "") if isinstance(error, openai.APIStatusError) else ""
    return min(float(asked), 60.0) if asked.replace(".", "", 1).isdigit() else min(0.5 * 2**attempt, 8.0)
