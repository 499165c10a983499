"""ask: the benchmark's questions to one LVLM, `data/finer/answers/<lvlm>/<dataset>.parquet`.

An LVLM is an OpenAI-compatible chat endpoint, or a checkpoint that `transformers serve` serves meanwhile. Every answer
is logged as it arrives, keyed by what was asked, so that an interrupted run continues and nothing is paid twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.common.endpoint import Failure, Outcome, api_key, ask_all, summarise
from stages.common.errors import UserError, warn
from stages.common.responses import LogWriter, Records, Reply, read_log
from stages.common.tables import Meta, make_meta, write_table
from stages.common.thoughts import without_marks, without_thoughts
from stages.finer import paths
from stages.finer.answers import ANSWERS
from stages.finer.ask.questions import ChatRequest, Lvlm, Question, Turn, build_questions
from stages.finer.ask.serve import checkpoint_hash, serving
from stages.finer.attributes import read_by_class
from stages.finer.classes import read_classes
from stages.finer.cli import FinerJob
from stages.finer.params import Ask, sent
from stages.finer.unified import read_unified

REFUSED = ("refused", "content filter", "no text")
"""What a model or its filter says to an image or a question; asked again it would say the same."""

TRIED_FIRST = 4
"""Images that are asked about before all the others, to find out whether the endpoint takes any."""

REFUSED_BY_SERVER = ("HTTP 400", "HTTP 413", "HTTP 415", "HTTP 422")
"""The same from the server: it does not take this request, whoever else it serves."""


@dataclass(frozen=True)
class Connection:
    """Where an LVLM is reached; `vision` where the user says that it sees images."""

    url: str | None
    key: str
    vision: bool = False


def find_lvlm(job: FinerJob) -> Lvlm:
    """Whom to ask.

    Raises:
        UserError: a checkpoint that is not there.
    """
    ask = job.finer.ask
    settings: dict[str, Any] = {
        "temperature": ask.temperature,
        "max_tokens": ask.max_tokens,
        "seed": job.params.seed,
    }
    if job.lvlm in job.finer.endpoints:
        endpoint = job.finer.endpoints[job.lvlm]
        return Lvlm(job.lvlm, endpoint.model, None, sent(settings, endpoint.settings))
    folder = Path(job.finer.served[job.lvlm])
    return Lvlm(job.lvlm, str(folder.resolve()), checkpoint_hash(folder), settings)


def all_questions(job: FinerJob) -> tuple[dict[str, list[Question]], list[str]]:
    """The questions about each data set, and what is wrong with the others: one need not keep the rest from answers.

    Raises:
        UserError: something is wrong with every data set.
    """
    questions, problems = {}, []
    for dataset in job.finer.datasets:
        try:
            questions[dataset] = dataset_questions(job, dataset)
        except UserError as error:
            problems.append(str(error))
    if not questions and problems:
        raise UserError("; ".join(problems))
    return questions, problems


def dataset_questions(job: FinerJob, dataset: str) -> list[Question]:
    """Every question about a data set, in order.

    Raises:
        UserError: an input that is missing or wrong.
    """
    classes = read_classes(dataset)
    samples = read_unified(paths.unified(dataset, paths.TEST), dataset, [entry.fine for entry in classes])
    if not samples:
        raise UserError(
            f"{paths.unified(dataset, paths.TEST)} holds no image; lower finer.datasets.{dataset}.train_share"
        )
    concepts = read_by_class(paths.attributes_by_class(dataset), [entry.name for entry in classes])
    return build_questions(samples, concepts, job.finer.ask, job.params.seed, dataset)


def ask_dataset(
    job: FinerJob, lvlm: Lvlm, dataset: str, questions: Sequence[Question], connection: Connection | None
) -> str:
    """Have a data set's questions answered and write its table; the line to print.

    Args:
        connection: None where the log holds every answer.

    Raises:
        UserError: no key, no endpoint, one that sees no images, or answers that could not be got; what was received
            stays in the log.
    """
    log = paths.responses(job.lvlm, dataset)
    records, asked = read_log(log), 0
    refused = refused_before(records)
    if connection is not None:
        with LogWriter(log) as writer:
            asker = _Asker(lvlm, job.finer.ask, connection, writer)
            checked = asker.check_sight(questions, TRIED_FIRST)
            asker.ask([question.first(lvlm) for question in questions])
            if not checked:
                asker.check_sight(questions)
            asker.ask_second([request for q in questions if (request := _second(q, lvlm, writer.records))])
            records, refused, asked = writer.records, asker.refused, asker.received
    table = answers_table(questions, lvlm, records, refused)
    path = paths.answers(job.lvlm, dataset)
    write_table(path, table, answers_meta(job, lvlm, dataset))
    missing = Counter(reason for reason in table["missing"].to_pylist() if reason)
    lost = ", ".join(f"{count} {reason}" for reason, count in missing.most_common())
    ends = zip(table["answer"].to_pylist(), table["finish_reason"].to_pylist(), strict=True)
    cut = sum(answer is not None and not answer.strip() and reason == "length" for answer, reason in ends)
    limit = f"; {cut} were cut before their first word, at the limit of tokens (finer.ask.max_tokens)" if cut else ""
    return (
        f"{path}: {len(questions)} questions about {len({q.sample.idx for q in questions})} images, {asked} asked for "
        f"now; missing: {lost or 'none'}{limit}"
    )


def _second(question: Question, lvlm: Lvlm, records: Records) -> ChatRequest | None:
    """ATTRSEEK's second request, once the first is answered."""
    if question.seek is None:
        return None
    reply = records.answers.get(question.first(lvlm).digest)
    return question.second(lvlm, without_thoughts(reply.answer)) if reply else None


def refused_before(records: Records) -> dict[str, str]:
    """Requests by digest that were refused by the model, which was paid for, and why."""
    return {digest: reason for (digest, _), reason in records.unusable.items() if reason in REFUSED}


def _open(questions: Sequence[Question], lvlm: Lvlm, records: Records) -> bool:
    """Whether any answer is still to be got."""
    settled = records.answers.keys() | refused_before(records).keys()
    for question in questions:
        second = _second(question, lvlm, records)
        if question.first(lvlm).digest not in settled or (second and second.digest not in settled):
            return True
    return False


@contextmanager
def _connection(job: FinerJob, lvlm: Lvlm) -> Iterator[Connection]:
    if job.lvlm in job.finer.served:
        folder = Path(job.finer.served[job.lvlm])
        with serving(folder, paths.responses(job.lvlm, "x").parent / "server.log") as url:
            yield Connection(url, "none")
        return
    endpoint = job.finer.endpoints[job.lvlm]
    missing = (
        f"there is no key to ask '{job.lvlm}' with: set {endpoint.api_key_env} (any word for a server without keys), "
        f"or take '{job.lvlm}' out of finer.endpoints in params.yaml"
    )
    yield Connection(endpoint.base_url, api_key(missing, endpoint.api_key_env, endpoint.base_url), endpoint.vision)


@dataclass
class _Asker:
    """One connection to an LVLM, with what it refused so far."""

    lvlm: Lvlm
    settings: Ask
    connection: Connection
    log: LogWriter
    received: int = 0

    def __post_init__(self) -> None:
        self.refused = refused_before(self.log.records)

    def ask(self, requests: Sequence[ChatRequest]) -> None:
        """Get an answer to each of `requests` into the log, or note that it is refused.

        Raises:
            UserError: answers that are missing for another reason, or an endpoint that takes no image at all.
        """
        outcome, wanted = self._send(requests)
        self._check_images(requests, outcome.failures)
        self._check_endpoint(outcome, requests, wanted)
        for failure in outcome.failures:
            self.refused[failure.request.digest] = f"{failure.reason}{_said(failure)}"

    def ask_second(self, requests: Sequence[ChatRequest]) -> None:
        """The same for ATTRSEEK's second turns. A server that refuses them all has still answered the first ones.

        Raises:
            UserError: answers that are missing for another reason than that they were refused.
        """
        outcome, wanted = self._send(requests)
        self._check_endpoint(outcome, requests, wanted)
        for failure in outcome.failures:
            by_server = " in the second turn" if failure.reason in REFUSED_BY_SERVER else ""
            self.refused[failure.request.digest] = f"{failure.reason}{by_server}{_said(failure)}"
        refused = [failure for failure in outcome.failures if failure.reason in REFUSED_BY_SERVER]
        if refused:
            warn(
                f"'{self.lvlm.key}' refuses the second turn of ATTRSEEK ({summarise(refused, 'image')}); these rows "
                "have no answer, all others are kept. Once the server takes them (a longer context), run `python -m "
                f"stages.finer.ask --lvlm {self.lvlm.key}`; or take attrseek out of finer.ask.prompting in params.yaml"
            )

    def _send(self, requests: Sequence[ChatRequest]) -> tuple[Outcome, int]:
        """Ask for what is neither answered nor refused; how that went, and how many requests it was."""
        settled = self.log.records.answers.keys() | self.refused.keys()
        wanted = list({request.digest: request for request in requests if request.digest not in settled}.values())
        if not wanted:
            return Outcome(), 0
        # An endpoint that has answered is up, and refuses what it refuses.
        own = REFUSED_BY_SERVER if self.log.records.answers else ()
        key, url = self.connection.key, self.connection.url
        outcome = ask_all(wanted, self.settings, key, self.log, url, own_faults=own, final=REFUSED)
        self.received += outcome.received
        return outcome, len(wanted)

    def _check_images(self, requests: Sequence[ChatRequest], failures: Sequence[Failure]) -> None:
        """Refuse an endpoint that never took an image and now refused some."""
        shown = {request.digest for request in requests if request.turns[0].picture}
        refused = [f for f in failures if f.reason in REFUSED_BY_SERVER and f.request.digest in shown]
        answered = self.log.records.answers.keys()
        if failures and not answered:
            raise UserError(
                f"'{self.lvlm.key}' answers nothing ({summarise(failures, 'image')}): check the endpoint, and what is "
                "sent with each question (finer.ask, and `settings` of the endpoint, in params.yaml)"
            )
        if refused and not shown & answered:
            raise UserError(
                f"'{self.lvlm.key}' refuses every image ({summarise(refused, 'image')}): does the model take images? "
                f"If it does, look at finer.ask in params.yaml; what was received is kept in {self.log.path}"
            )

    def _check_endpoint(self, outcome: Outcome, requests: Sequence[ChatRequest], wanted: int) -> None:
        """Refuse to go on where answers failed for another reason than what was asked."""
        lost = [f for f in outcome.failures if f.reason not in (*REFUSED, *REFUSED_BY_SERVER)]
        if lost or outcome.gave_up:
            gave_up = f"{outcome.gave_up}, so asking stopped: " if outcome.gave_up else ""
            answered = {bool(r.turns[0].picture) for r in requests if r.digest in self.log.records.answers}
            sight = " (only questions without an image were answered: does the model take images?)"
            why = summarise(lost or outcome.failures, "image") + (sight if answered == {False} else "")
            raise UserError(
                f"{wanted - outcome.received} of {wanted} answers of '{self.lvlm.key}' are missing: {gave_up}"
                f"{why}; the {outcome.received} received are kept in "
                f"{self.log.path}, and a rerun asks only for the rest"
            )

    def check_sight(self, questions: Sequence[Question], images: int | None = None) -> bool:
        """Refuse an endpoint that drops images without a word: with its image a question must take more tokens.

        Costs one answer, once a log. An endpoint that counts no tokens passes, with a line. With `vision: true` the
        counts are not compared.

        Args:
            images: how many are tried, the first; None: all.

        Returns:
            Whether there is nothing left to find out: False where none of these images was answered.

        Raises:
            UserError: as above.
        """
        by_image = {q.sample.idx: q.first(self.lvlm) for q in reversed(questions) if q.given != "text"}
        if not by_image:
            return True
        tried = list(by_image.values())[::-1][:images]
        if self.connection.vision:
            self.ask(tried)
            return True
        words = replace(tried[0], turns=(Turn("user", tried[0].turns[0].text),))
        self.ask([*tried, words])
        answers = self.log.records.answers
        seeing = next((request for request in tried if request.digest in answers), None)
        if seeing is None:
            return False
        blind = replace(seeing, turns=(Turn("user", seeing.turns[0].text),))
        self.ask([blind])
        counts = [_prompt_tokens(answers.get(request.digest)) for request in (seeing, blind)]
        if counts[0] is None or counts[1] is None:
            print(f"'{self.lvlm.key}' counts no tokens: whether it sees the images cannot be checked", flush=True)
        elif counts[0] <= counts[1]:
            raise UserError(
                f"'{self.lvlm.key}' does not see images: a question took {counts[0]} tokens with its image and "
                f"{counts[1]} without; name a vision-language model under finer in params.yaml{self._say_so()}"
            )
        return True

    def _say_so(self) -> str:
        """The way out for an endpoint that sees and counts no images; a checkpoint that is served here counts them."""
        if self.lvlm.weights:
            return ""
        return f", or, if it does see them, set `vision: true` in finer.endpoints.{self.lvlm.key}"


def _said(failure: Failure) -> str:
    return f": {failure.detail}" if failure.detail else ""


def _prompt_tokens(reply: Reply | None) -> int | None:
    return reply.usage.get("prompt_tokens") if reply else None


def answers_table(questions: Sequence[Question], lvlm: Lvlm, records: Records, refused: dict[str, str]) -> pa.Table:
    """One row a question; `refused` says by digest why an answer is missing."""
    rows = []
    for question in questions:
        first = question.first(lvlm)
        reply = records.answers.get(first.digest)
        lost = first.digest
        seen = None
        if question.seek is not None and reply is not None:
            said = without_thoughts(reply.answer)
            seen, second = without_marks(said), question.second(lvlm, said)
            reply, lost = records.answers.get(second.digest), second.digest
        sample = question.sample
        rows.append(
            {
                "idx": sample.idx,
                "image_id": question.image_id,
                "label": sample.label,
                "superordinate": sample.superordinate,
                "coarse": sample.coarse,
                "fine": sample.fine,
                "granularity": question.granularity,
                "prompting": question.prompting,
                "input": question.given,
                "told": question.told,
                "question": question.text,
                "attributes": seen,
                "answer": without_marks(without_thoughts(reply.answer)) if reply else None,
                "finish_reason": reply.finish_reason if reply else None,
                "missing": None if reply else refused[lost],
            }
        )
    return pa.Table.from_pylist(rows, ANSWERS)


def answers_meta(job: FinerJob, lvlm: Lvlm, dataset: str) -> Meta:
    """What made the answers. A served checkpoint goes by its hash: its folder is another on each machine."""
    model = {"lvlm": lvlm.key, "name": lvlm.key if lvlm.weights else lvlm.model, "weights": lvlm.weights}
    parameters = {"seed": job.params.seed, **job.finer.ask.model_dump(include=ASKED)}
    return make_meta("answers", dataset, parameters=parameters, model=model)


ASKED = {"granularities", "prompting", "inputs", "images_per_class", "temperature", "max_tokens"}
