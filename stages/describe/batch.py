"""Asking through the Batch API: submit, wait, merge; the next run continues a killed one.

A batch is found again by its id in the response log. If the run is killed before the id is logged, the log holds an
intent, and the batch is found among those that the endpoint lists: its metadata names the intent, `{"bifta": digest of
its requests, "intent": id}`. The list may lag, so it is read for a while before a batch is submitted again.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import httpx2
import openai
from openai.types import Batch
from tqdm import tqdm

from stages.common import address, interrupts
from stages.common.digests import digest
from stages.common.endpoint import WAITS_AT_MOST, Failure, Outcome, explain, hopeless
from stages.common.errors import UserError
from stages.common.params import Describe
from stages.common.received import scrub
from stages.common.requests import Request
from stages.common.responses import LogWriter
from stages.describe.batch_client import (
    NO_SUCH,
    PASSING,
    HttpClient,
    ShortFile,
    completed,
    id_of,
    may_be_taken,
    metadata_of,
    pause_after,
    reading,
    usable,
)
from stages.describe.batch_files import Result, Results, line_of, split, url_of

ENDED = ("completed", "failed", "expired", "cancelled")
METADATA_KEY = "bifta"
INTENT_KEY = "intent"

LIST_LAG = 30.0
"""Seconds for which a batch that may have been submitted is looked for, because the endpoint's list may lag."""

PAUSES = (0.25, 5.0)  # seconds between two looks at the list: the first, which doubles, and the longest
KEPT_SECONDS = 30 * 24 * 3600
"""Older batches are ignored: their output files are gone."""

MOST_BLANK = 1000  # lines of a file of results beyond two for each request

FETCHES = 3  # of a file of results whose lines are not whole

GIVE_UP_AFTER = 10
"""Consecutive failed looks at a batch, each with all the client's retries."""


def ask_in_batches(requests: Sequence[Request], settings: Describe, key: str, log: LogWriter) -> Outcome:
    """Collect the log's open batches, and where `describe.mode` is batch submit those of `requests` in none of them.

    Failures of single requests are collected; a rerun asks for them again.

    Raises:
        UserError: the endpoint cannot be reached or has no Batch API; what was submitted is continued by a rerun.
    """
    with openai.OpenAI(
        **address.client_arguments(key, None),
        timeout=settings.timeout,
        max_retries=settings.max_retries,
        http_client=HttpClient(key),
    ) as client:
        batches = _Batches(client, settings, key, log, {request.digest: request for request in requests})
        try:
            batches.recover()
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

    def recover(self) -> None:
        """Find the batches whose intent is in the log without an id, because a run was interrupted."""
        intents = dict(self.log.records.intents)
        if not intents:
            return
        wanted = [name for name, intent in intents.items() if self.wanted.keys() & intent.requests]
        found = self._look_for(intents, LIST_LAG if wanted else 0.0)
        for name, batch in found.items():
            self.log.add_batch(batch.id, intents[name].model, intents[name].requests, name)
        for name in set(wanted) - found.keys():
            self.log.add_not_taken(name, f"not in the endpoint's list after {LIST_LAG:g} s")

    def submit(self, part: list[Request]) -> None:
        """Submit a batch, or take one of the same requests that this log does not know, and note its id in the log."""
        digests = [request.digest for request in part]
        of = digest(sorted(digests))
        batch, intent = self._find(of), None
        seconds = min(self.settings.timeout, WAITS_AT_MOST)
        line = (
            f"interrupted: no more is sent, the submission under way has {seconds:.0f} s to be answered; a second "
            "signal ends at once, and a rerun goes on with the batches under way"
        )
        with interrupts.finishing(line, seconds):
            if batch is None:
                batch, intent = self._create(part, of)
            self.log.add_batch(batch.id, self.settings.model, digests, intent)

    def _find(self, of: str) -> Batch | None:
        """A batch of these requests that the log does not know: of a log that was lost."""
        with reading():
            for batch in self._listed():
                if batch.status != "failed" and metadata_of(batch).get(METADATA_KEY) == of and id_of(batch):
                    return batch
        return None

    def _look_for(self, intents: Collection[str], seconds: float) -> dict[str, Batch]:
        """The batches of these intents that the endpoint lists; looks again until `seconds` have passed."""
        end, pause = time.monotonic() + seconds, PAUSES[0]
        files = {intent.file: name for name, intent in self.log.records.intents.items()}
        found: dict[str, Batch] = {}
        while True:
            with reading():
                for batch in self._listed():
                    name = str(metadata_of(batch).get(INTENT_KEY) or files.get(batch.input_file_id))
                    if name in intents and id_of(batch):
                        found.setdefault(name, batch)
            left = end - time.monotonic()
            if len(found) == len(intents) or left <= 0:
                return found
            if pause == PAUSES[0]:
                lost = len(intents) - len(found)
                print(
                    f"{self.log.path}: {lost} submitted batches may not be in the endpoint's list yet; looking for "
                    f"them for {seconds:g} s, so that none is paid for twice",
                    flush=True,
                )
            interrupts.sleep(min(pause, left))
            pause = min(2 * pause, PAUSES[1])

    def _listed(self) -> Iterator[Batch]:
        """The batches that the endpoint lists and the log does not know, page by page.

        Servers list the newest first or last, and some send the same page again and again.
        """
        seen: set[str] = set()
        oldest = time.time() - KEPT_SECONDS
        with reading():
            page = self.client.batches.list(limit=100)
            while True:
                new = [batch for batch in page.data if batch.id not in seen]
                seen |= {batch.id for batch in new}
                yield from (b for b in new if b.created_at >= oldest and b.id not in self.log.records.batches)
                newest_first = bool(new) and new[0].created_at >= new[-1].created_at
                if not new or (newest_first and new[-1].created_at < oldest) or not page.has_next_page():
                    return
                page = page.get_next_page()

    def _create(self, part: list[Request], of: str) -> tuple[Batch, str]:
        """Submit a batch; the batch and its intent, which is in the log before anything is submitted."""
        intent = uuid.uuid4().hex
        with reading():
            lines = b"".join(map(line_of, part))
            file = id_of(self.client.files.create(file=(f"{intent}.jsonl", lines), purpose="batch"))
        interrupts.check()  # an intent that is not submitted would be looked for in the next run
        self.log.add_intent(intent, self.settings.model, [request.digest for request in part], file)
        # No retries by the client: a submission whose answer was lost may have been taken, so it is looked for first.
        once = self.client.with_options(max_retries=0)
        for attempt in range(self.settings.max_retries + 1):
            try:
                with reading():
                    batch = once.batches.create(
                        input_file_id=file,
                        endpoint=url_of(part[0]),
                        completion_window="24h",
                        metadata={METADATA_KEY: of, INTENT_KEY: intent},
                    )
                    id_of(batch)
                    return batch, intent
            except openai.OpenAIError as error:
                taken = may_be_taken(error)
                if attempt == self.settings.max_retries or not isinstance(error, PASSING) or hopeless(error):
                    if not taken:
                        self.log.add_not_taken(intent, explain(error, self.key)[0])
                    raise
                interrupts.sleep(pause_after(error, attempt))
            if taken and (found := self._look_for([intent], LIST_LAG).get(intent)):
                return found, intent
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
                    done[name] = completed(batch)
                    if batch.status in ENDED:
                        self.merge(name, batch)
                    if batch.status in ENDED or not self.wanted.keys() & self.log.records.batches[name].requests:
                        waiting.remove(name)
                progress.n = sum(done.values())
                progress.refresh()
                if waiting:
                    time.sleep(self.settings.batch_poll)

    def _look_at(self, name: str) -> Batch | None:
        """The batch as it is now; None if the look failed and a later one may succeed."""
        try:
            with reading():
                batch = self.client.batches.retrieve(name)
                assert isinstance(batch.status, str)
        except PASSING as error:
            self.failed_in_a_row += 1
            if self.failed_in_a_row >= GIVE_UP_AFTER or hopeless(error):
                raise
            return None
        self.failed_in_a_row = 0
        return batch

    def merge(self, name: str, batch: Batch) -> None:
        """Take everything that came of an ended batch into the log, and note that it is done with.

        Args:
            name: its id in the log. The id in the server's answer may be another one.
        """
        with reading():
            problems = (batch.errors.data if batch.errors else None) or []
            detail = scrub(" ".join(str(problem.message or "") for problem in problems[:1]), self.key)[:200]
            files = ((batch.output_file_id, completed(batch)), (batch.error_file_id, 0))
        reasons: dict[str, tuple[str, str]] = {}
        for file, least in files:
            if file:
                self._fetch(name, usable(file), least, reasons)
        self.log.add_ended(name, batch.status)
        silent = "not among the batch's results" if batch.status == "completed" else f"batch {batch.status}"
        for request in self.log.records.batches[name].requests:
            if request in self.wanted and request not in self.log.records.answers:
                reason = reasons.get(request, (silent, detail))
                self.outcome.failures.append(Failure(self.wanted[request], *reason))

    def _fetch(self, batch: str, file: str, least: int, reasons: dict[str, tuple[str, str]]) -> None:
        """Take the results in a file, and add to `reasons` why there is no answer.

        They are paid, so a file with torn lines or less than `least` results is fetched again. Lines that stay torn are
        given up. It is read line by line, because it may be larger than the memory.

        Raises:
            ShortFile: results are missing at the end each time. A rerun fetches the file again.
        """
        requests = set(self.log.records.batches[batch].requests)
        most = 2 * len(requests) + MOST_BLANK
        for attempt in range(FETCHES):
            results = Results()
            try:
                with self.client.files.with_streaming_response.content(file) as response:
                    for result in results.read(response.iter_bytes(), self.key, most):
                        if result.request in requests:  # a server may send other results as well
                            self._take(batch, result)
                            detail = scrub(result.detail, self.key)[:200]
                            reasons[result.request] = scrub(result.reason, self.key)[:80], detail
            except httpx2.RequestError as error:
                if attempt == FETCHES - 1:
                    raise openai.APIConnectionError(request=error.request) from error
                continue
            if not results.is_short(least) and not results.torn:
                return
        if results.is_short(least):
            raise ShortFile(batch)

    def _take(self, batch: str, result: Result) -> None:
        """Take what was paid into the log. Flushed with the record that the batch has ended, which comes after it."""
        model = self.log.records.batches[batch].model
        if result.reply is None:
            if result.usage:
                self.log.add_unusable(result.request, model, result.reason, result.usage, batch)
        elif result.request not in self.log.records.answers:
            if result.request in self.wanted:
                self.outcome.received += 1
                self.log.add_answer(self.wanted[result.request], result.reply, sync=False)
            else:  # the prompts have changed since: kept, in case they change back
                self.log.add_answer_to(result.request, model, result.reply, sync=False)

    def refuse(self, error: openai.OpenAIError) -> NoReturn:
        """Say what failed and how to go on."""
        reason, detail = explain(error, self.key)
        why = f"{reason}{f': {detail}' if detail else ''}"
        batches = ", ".join(self.log.records.open_batches())
        intents = ", ".join(self.log.records.intents)
        if batches or intents:
            under_way = [f"batches under way: {batches}"] if batches else []
            under_way += [f"batches that may have been submitted: {intents}"] if intents else []
            remedy = f"{', '.join(under_way)}; a rerun with the same key and OPENAI_BASE_URL goes on"
            if isinstance(error, ShortFile):
                # Without its line, the batch would be found again: the endpoint still lists it.
                ended = json.dumps({"batch": error.batch, "ended": "given up"})
                remedy += f"; to give it up and pay for the rest again, add the line {ended} to {self.log.path}"
            if isinstance(error, openai.APIStatusError) and error.status_code in NO_SUCH:
                remedy += f"; to give one up, delete its line in {self.log.path}"
        elif isinstance(error, openai.APIStatusError) and error.status_code in NO_SUCH:
            remedy = "this endpoint may have no Batch API: set describe.mode to direct in params.yaml"
        else:
            remedy = hopeless(error) or "a rerun submits what was not"
        raise UserError(f"asking in batches stopped ({why}); {remedy}") from None
