"""ask: the benchmark's questions to one LVLM -> `data/finer/answers/<lvlm>/<dataset>.parquet`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.common import address
from stages.common.artifacts import Metadata
from stages.common.check import check_models, check_roots
from stages.common.endpoint import api_key
from stages.common.errors import UserError
from stages.common.responses import LogWriter, Records, read_log
from stages.common.tables import make_meta, write_table
from stages.common.thoughts import without_marks, without_thoughts
from stages.finer import paths
from stages.finer.artifacts import ANSWERS, AnswersParameters, LvlmMeta
from stages.finer.ask.asker import TRIED_FIRST, Asker, Connection, refused_before
from stages.finer.ask.questions import ChatRequest, Lvlm, Question, build_questions
from stages.finer.ask.serve import checkpoint_hash, serving
from stages.finer.attributes import read_by_class
from stages.finer.cli import FinerJob
from stages.finer.params import merge_settings
from stages.finer.unified import class_names, read_unified


def ask_lvlm(job: FinerJob) -> Iterator[str]:
    """Ask an LVLM about every data set and write the tables of answers; the lines to print, one by one.

    If the logs hold every answer, no endpoint is needed. A data set with wrong input does not stop the others: its
    error is raised last.

    Raises:
        UserError: as `all_questions`, `find_lvlm` and `ask_dataset`.
    """
    questions, problems = all_questions(job)
    lvlm = find_lvlm(job)
    folder = paths.answers(job.lvlm, "x").parent
    for stale in folder.glob("*.parquet"):
        if stale.stem not in job.finer.datasets:
            stale.unlink()
    waiting = any(
        _is_waiting(own, lvlm, read_log(paths.responses(job.lvlm, dataset))) for dataset, own in questions.items()
    )
    with _connection(job, lvlm) if waiting else nullcontext() as connection:
        for dataset, own in questions.items():
            yield ask_dataset(job, lvlm, dataset, own, connection)
    if problems:
        raise UserError("; ".join(problems))


def find_lvlm(job: FinerJob) -> Lvlm:
    """The LVLM to ask.

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
        return Lvlm(job.lvlm, endpoint.model, None, merge_settings(settings, endpoint.settings))
    folder = Path(job.finer.served[job.lvlm])
    return Lvlm(job.lvlm, job.lvlm, checkpoint_hash(folder), settings, str(folder.resolve()))


def all_questions(job: FinerJob) -> tuple[dict[str, list[Question]], list[str]]:
    """The questions about each data set, and the errors of data sets with wrong input.

    Raises:
        UserError: every data set has wrong input.
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
    samples = read_unified(paths.unified(dataset, paths.TEST), dataset)
    if not samples:
        raise UserError(
            f"{paths.unified(dataset, paths.TEST)} holds no image; lower finer.datasets.{dataset}.train_share"
        )
    concepts = read_by_class(paths.attributes_by_class(dataset), class_names(samples))
    return build_questions(samples, concepts, job.finer.ask, job.params.seed, dataset)


def ask_dataset(
    job: FinerJob, lvlm: Lvlm, dataset: str, questions: Sequence[Question], connection: Connection | None
) -> str:
    """Get the answers about a data set and write its table; the line to print.

    Args:
        connection: None if the log holds every answer.

    Raises:
        UserError: no key, no endpoint, one that sees no images, or answers that could not be got. Received answers stay
            in the log.
    """
    log = paths.responses(job.lvlm, dataset)
    records, asked = read_log(log), 0
    refused = refused_before(records)
    if connection is not None:
        with LogWriter(log) as writer:
            asker = Asker(lvlm, job.finer.ask, connection, writer)
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
    """ATTRSEEK's second request; None before the first is answered."""
    if question.seek is None:
        return None
    reply = records.answers.get(question.first(lvlm).digest)
    return question.second(lvlm, without_thoughts(reply.answer)) if reply else None


def _is_waiting(questions: Sequence[Question], lvlm: Lvlm, records: Records) -> bool:
    """Whether an answer is missing that was not refused."""
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
        with serving(folder, paths.server_log(job.lvlm)) as url:
            yield Connection(url, "none")
        return
    endpoint = job.finer.endpoints[job.lvlm]
    named = "api_key_env" in endpoint.model_fields_set
    without = "take api_key_env out" if named and endpoint.base_url else "give its base_url"
    missing = (
        f"there is no key to ask '{job.lvlm}' with: set {endpoint.api_key_env}; for a server without keys {without}; "
        f"or take '{job.lvlm}' out of finer.endpoints in params.yaml"
    )
    setting = address.BASE_URL if endpoint.base_url is None else f"finer.endpoints.{job.lvlm}.base_url in params.yaml"
    key = api_key(missing, endpoint.api_key_env, endpoint.base_url, setting, must_be_set=named)
    check_roots(job.params)
    check_models(job.params)
    yield Connection(endpoint.base_url, key, endpoint.vision)


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
                "image_id": sample.image_id,
                "label": sample.label,
                "superordinate": sample.superordinate,
                "coarse": sample.coarse,
                "fine": sample.fine,
                "granularity": question.granularity,
                "prompting": question.prompting,
                "input": question.modality,
                "parent_label": question.parent_label,
                "question": question.text,
                "attributes": seen,
                "answer": without_marks(without_thoughts(reply.answer)) if reply else None,
                "finish_reason": reply.finish_reason if reply else None,
                "missing": None if reply else refused[lost],
            }
        )
    return pa.Table.from_pylist(rows, ANSWERS.columns)


def answers_meta(job: FinerJob, lvlm: Lvlm, dataset: str) -> Metadata[AnswersParameters]:
    """What made the answers. A served checkpoint is identified by its hash, because its folder differs by machine."""
    made_by = LvlmMeta(lvlm=lvlm.key, name=lvlm.model, weights=lvlm.weights)
    asked = job.finer.ask.model_dump(include=ASKED)
    return make_meta(ANSWERS, dataset, AnswersParameters(lvlm=made_by, seed=job.params.seed, **asked))


ASKED = {"granularities", "prompting", "inputs", "images_per_class", "temperature", "max_tokens"}
