"""The attribute files of a data set: used as they are, or made from a language model's answers (FINER, section 3)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stages.common import files
from stages.common import paths as common_paths
from stages.common.check import check_models, check_roots
from stages.common.endpoint import NOT_TAKEN, api_key, ask_all, summarise
from stages.common.errors import UserError, warn
from stages.common.experiments import check_asking
from stages.common.requests import Request
from stages.common.responses import LogWriter, Records, ensure_log, read_log, sha256
from stages.finer import paths
from stages.finer.attributes import Attributes, Concept, attributes_json, write_by_class
from stages.finer.classes import ClassLabels, read_classes
from stages.finer.cli import FinerJob
from stages.finer.concepts.answers import NoAttributes, concept_request, parse_attributes
from stages.finer.concepts.matching import class_concepts
from stages.finer.concepts.texts import excerpt, read_texts
from stages.finer.params import Concepts

COMMON_NAMES = "inaturalist"
"""The reader whose classes have a binomial and a common name. FINER asks about both."""


OWN_SETTINGS = (
    "; finer.concepts says what is sent: `structured: false` asks for no schema, `settings` of "
    "{max_tokens: null, max_completion_tokens: 600} takes one key out and adds another"
)


def make_concepts(job: FinerJob) -> str:
    """Make or check the attributes of a data set's classes; the line to print.

    Raises:
        UserError: an existing file that is not of its format or lacks a class, no API key, answers that could not be
            got or hold no attributes, or a need to ask in an experiment's folder.
    """
    target, log = paths.attributes(job.dataset), paths.concept_responses(job.dataset)
    classes = read_classes(job.dataset)
    records = read_log(log)
    ensure_log(log)
    own = target.exists() and sha256(target.read_bytes()) in records.wrote
    if target.exists() and not own:
        said = f"{target}: used as it is"
    else:
        said = _ask_and_write(job, classes, target, log, records)
    concepts = class_concepts(target, classes)
    described = {
        entry.name: [*concept.binomial.required, *concept.binomial.likely]
        for entry, concept in zip(classes, concepts, strict=True)
    }
    # Several classes may share a concept (an aircraft's family), so each gets a copy under its own name.
    by_class = [replace(concept, id=label, name=classes[label].name, fine=()) for label, concept in enumerate(concepts)]
    write_by_class(paths.attributes_by_class(job.dataset), by_class)
    source = common_paths.descriptions(job.dataset, "finer")
    _check_experiment(job, source, records, asks=False)
    _write_own(source, described, log)
    required = sum(len(concept.binomial.required) for concept in concepts)
    likely = sum(len(concept.binomial.likely) for concept in concepts)
    return f"{said}; {required} required and {likely} likely attributes of {len(classes)} classes"


def _check_experiment(job: FinerJob, target: Path, records: Records, *, asks: bool) -> None:
    allowed, key = job.finer.concepts.ask_in_experiments, "finer.concepts.ask_in_experiments"
    check_asking(target, asks=asks, wrote=records.wrote, allowed=allowed, key=key)


def _write_own(target: Path, described: dict[str, list[str]], log: Path) -> None:
    """Write the source's descriptions. A file that this stage did not write is left as it is, with a warning.

    The demo's file is in git with the same content, so it counts as the stage's own.
    """
    content = (json.dumps(described, indent=2, ensure_ascii=False) + "\n").encode()
    there = target.read_bytes() if target.exists() else None
    if there == content:
        return
    with LogWriter(log) as writer:
        if there is not None and sha256(there) not in writer.records.wrote:
            warn(f"{target} was not written by this stage and is left as it is; move it away to have it made again")
            return
        writer.add_wrote(target, content, None)
    with files.replacing(target) as temporary:
        temporary.write_bytes(content)


@dataclass(frozen=True)
class _Question:
    """A concept under one of its names, and the request for it."""

    label: int
    common: bool
    request: Request


def _ask_and_write(job: FinerJob, classes: Sequence[ClassLabels], target: Path, log: Path, records: Records) -> str:
    texts_path = paths.texts(job.dataset)
    texts = read_texts(texts_path, [entry.name for entry in classes])
    questions = _questions(job, classes, texts)
    missing = [q.request for q in questions if q.request.digest not in records.answers]
    _check_experiment(job, target, records, asks=bool(missing))
    if missing:
        records = _ask(missing, job, target, log)
    found, dropped = _parse(questions, records, target, log)
    concepts = [
        Concept(
            label,
            entry.name,
            found[label, False],
            common_name=entry.fine[1] if (label, True) in found else None,
            common=found.get((label, True)),
        )
        for label, entry in enumerate(classes)
    ]
    content = attributes_json(concepts).encode()
    if not target.exists() or target.read_bytes() != content:
        with LogWriter(log) as writer:
            writer.add_wrote(target, content, job.finer.concepts.model)
        with files.replacing(target) as temporary:
            temporary.write_bytes(content)
    lost = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common()) or "none"
    return (
        f"{target}: from {len(questions)} answers, {len(missing)} of them asked for now, with texts of "
        f"{len(texts)} of {len(classes)} concepts ({texts_path}); dropped: {lost}"
    )


def _questions(job: FinerJob, classes: Sequence[ClassLabels], texts: dict[str, str]) -> list[_Question]:
    settings: Concepts = job.finer.concepts
    both = job.params.datasets[job.dataset].reader == COMMON_NAMES
    questions = []
    for label, entry in enumerate(classes):
        text = excerpt(texts.get(entry.name, ""), settings.words)
        for number, name in enumerate(entry.fine[: 2 if both else 1]):
            questions.append(_Question(label, number > 0, concept_request(name, entry.kind, text, settings)))
    return questions


def _ask(missing: list[Request], job: FinerJob, target: Path, log: Path) -> Records:
    """Get an answer to each of `missing` into the log; the log's records after that."""
    key = api_key(
        f"{target} is missing or out of date, and OpenAI's endpoint, the default, wants a key to ask a language model: "
        "put a published file there, set OPENAI_API_KEY, set OPENAI_BASE_URL for another server (many need no key), "
        "or take "
        f"'{job.dataset}' out of finer.datasets in params.yaml"
    )
    check_roots(job.params)
    check_models(job.params)
    with LogWriter(log) as writer:
        wanted = [request for request in missing if request.digest not in writer.records.answers]
        print(f"{target}: asking {job.finer.concepts.model} about {len(wanted)} concepts", flush=True)
        outcome = ask_all(wanted, job.params.describe, key, writer)
        if outcome.failures:
            gave_up = f"{outcome.gave_up}, so asking stopped: " if outcome.gave_up else ""
            not_taken = any(failure.reason in NOT_TAKEN for failure in outcome.failures)
            raise UserError(
                f"{target} is not written, {len(wanted) - outcome.received} of {len(wanted)} answers are missing: "
                f"{gave_up}{summarise(outcome.failures, 'concept')}; the {outcome.received} received are kept in "
                f"{log}, and a rerun asks only for the rest{OWN_SETTINGS if not_taken else ''}"
            )
        return writer.records


def _parse(
    questions: Sequence[_Question], records: Records, target: Path, log: Path
) -> tuple[dict[tuple[int, bool], Attributes], Counter[str]]:
    """Attributes by (label, whether for the common name), and counts of what was dropped."""
    found: dict[tuple[int, bool], Attributes] = {}
    dropped: Counter[str] = Counter()
    empty, cut = [], 0
    for question in questions:
        reply = records.answers[question.request.digest]
        try:
            attributes, lost = parse_attributes(reply.answer)
        except NoAttributes:
            empty.append(question.request.name)
            cut += reply.finish_reason == "length"
            continue
        found[question.label, question.common] = attributes
        dropped += lost
    if empty:
        limit = f"; {cut} of them were cut at the limit, which `settings: {{max_tokens: 4000}}` raises" if cut else ""
        raise UserError(
            f"{target} is not written: {len(empty)} of {len(questions)} answers in {log} hold no required attribute "
            f"({', '.join(repr(name) for name in empty[:10])}); change finer.concepts in params.yaml (structured, "
            f"model, settings), or give these concepts texts{limit}"
        )
    return found, dropped
