"""Making a description file: asking for what is missing, cleaning the answers, writing the file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from stages.common import files, paths
from stages.common.endpoint import NOT_TAKEN, Outcome, api_key, ask_all, summarise
from stages.common.errors import UserError
from stages.common.experiments import check_asking
from stages.common.params import Describe
from stages.common.requests import Request
from stages.common.responses import LogWriter, Records, ensure_log, read_log, sha256
from stages.describe.batch import ask_in_batches
from stages.describe.clean import Parse, clean
from stages.describe.estimate import explain_spent
from stages.describe.plan import Descriptions, Plan, make_plan
from stages.describe.prompts import PromptSource

NAMED = 40
"""Classes that are named for each reason why answers are missing."""


def describe(dataset: str, source: str, settings: Describe) -> None:
    """Make `descriptions/<dataset>/<source>.json`, or check the file if it exists and is not this stage's own.

    Raises:
        UserError: the file there is not of its format, an input is missing or wrong, there is no API key, or answers
        are missing; those received
            stay in the log. Or the stage would have to ask in an experiment's folder.
    """
    plan = make_plan(dataset, source, settings)
    check_asking(
        plan.target,
        asks=bool(plan.missing()),
        wrote=plan.records.wrote,
        allowed=settings.ask_in_experiments,
        key="describe.ask_in_experiments",
    )
    ensure_log(plan.log)
    if plan.taken is not None:
        _copy(plan, plan.taken)
        print(f"{plan.target}: copied from {plan.taken}, because the classes are the same")
    if plan.found is not None:
        count = sum(map(len, plan.found.values()))
        print(f"{plan.target}: used as it is, {count} descriptions of {len(plan.found)} classes")
    else:
        make(plan, source, settings)


def _copy(plan: Plan, taken: Path) -> None:
    """Take over the file of another data set, with the note of who wrote it."""
    content = taken.read_bytes()
    model = read_log(paths.responses(taken.parent.name, taken.stem)).written_by.get(sha256(content))
    if model is not None:
        with LogWriter(plan.log) as writer:
            writer.add_copied(plan.target, content, model)
    with files.replacing(plan.target) as temporary:
        temporary.write_bytes(content)


def make(plan: Plan, source: str, settings: Describe) -> None:
    """Ask for missing answers, then write the descriptions from all answers in the log."""
    prompts, records = plan.prompts, plan.records
    assert prompts is not None
    before, missing = dict(records.tokens), plan.missing()
    if missing:
        records = ask(missing, settings, _api_key(plan.target, source), plan)
    described, dropped = sentences(plan.requests, records, prompts.parse)
    _check_every_class(described, source, prompts, dropped)
    written = write(plan.target, plan.log, described, settings.model)
    count = sum(map(len, described.values()))
    print(
        f"{plan.target}: {'' if written else 'unchanged, '}{count} descriptions of {len(described)} classes from "
        f"{len(plan.requests)} answers, {len(missing)} of them asked for now; dropped: {_list_counts(dropped)}; "
        f"{explain_spent(before, records, settings)}"
    )


def ask(missing: list[Request], settings: Describe, key: str, plan: Plan) -> Records:
    """Log an answer to each of `missing`; returns the content of the log.

    Raises:
        UserError: some are missing: how many, and why.
    """
    with LogWriter(plan.log) as writer:
        records = writer.records
        before = dict(records.tokens)
        # Another run may have received some of them in the meantime.
        wanted = [request for request in missing if request.digest not in records.answers]
        print(f"{plan.target}: asking {settings.model} for {len(wanted)} answers", flush=True)
        try:
            outcome = _ask(wanted, settings, key, writer)
        except BaseException:
            print(f"{plan.target}: {explain_spent(before, records, settings)}", flush=True)
            raise
        if outcome.failures:
            print(f"{plan.target}: {explain_spent(before, records, settings)}")
            print("\n".join(list_missing(outcome, wanted, records)), flush=True)
            raise UserError(_explain_failures(outcome, len(wanted), plan))
        return records


def _ask(wanted: list[Request], settings: Describe, key: str, writer: LogWriter) -> Outcome:
    received = 0
    # Requests in a batch are not paid for a second time, even if the mode has changed.
    if settings.mode == "batch" or writer.records.open_batches() or writer.records.intents:
        outcome = ask_in_batches(wanted, settings, key, writer)
        if settings.mode == "batch":
            return outcome
        received = outcome.received
    rest = [request for request in wanted if request.digest not in writer.records.answers]
    outcome = ask_all(rest, settings, key, writer)
    outcome.received += received
    return outcome


def list_missing(outcome: Outcome, wanted: list[Request], records: Records) -> list[str]:
    """One line a reason: which classes lack how many answers."""
    classes: dict[str, Counter[str]] = {}
    for failure in outcome.failures:
        classes.setdefault(failure.reason, Counter())[failure.request.name] += 1
    tried = {failure.request.digest for failure in outcome.failures} | records.answers.keys()
    for request in wanted:
        if request.digest not in tried:
            classes.setdefault("not asked for", Counter())[request.name] += 1
    lines = []
    for reason, names in classes.items():
        listed = [f"'{name}'{f' x {count}' if count > 1 else ''}" for name, count in names.items()]
        more = f" and {len(listed) - NAMED} more classes" if len(listed) > NAMED else ""
        lines.append(f"missing, {reason}: {', '.join(listed[:NAMED])}{more}")
    return lines


def _explain_failures(outcome: Outcome, wanted: int, plan: Plan) -> str:
    why = summarise(outcome.failures)
    if outcome.gave_up:
        remedy = "check OPENAI_API_KEY, OPENAI_BASE_URL and describe.model in params.yaml"
        why = f"{outcome.gave_up}, so asking stopped: {why}; {remedy}"
    if any(failure.reason in NOT_TAKEN for failure in outcome.failures):
        why += (
            f"; {plan.prompts_file} says what is sent: `max_tokens: null` or `temperature: null` leaves one out, "
            "`extra` adds another, such as {max_completion_tokens: 200}"
        )
    return (
        f"{plan.target} is not written, {wanted - outcome.received} of {wanted} answers are missing: {why}; "
        f"the {outcome.received} received are kept in {plan.log}, and a rerun asks only for the rest"
    )


def sentences(requests: Sequence[Request], records: Records, parse: Parse) -> tuple[Descriptions, Counter[str]]:
    """The descriptions of each class in the order of `requests`, and what was dropped for which reason."""
    described: Descriptions = {request.name: [] for request in requests}
    dropped: Counter[str] = Counter()
    for request in requests:
        reply = records.answers[request.digest]
        kept, reasons = clean(reply.answer, parse, reply.finish_reason)
        described[request.name] += kept
        dropped += reasons
    return described, dropped


def write(target: Path, log: Path, described: Descriptions, model: str) -> bool:
    """Write the descriptions and note in the log that they are this stage's own, from answers of `model`.

    Returns:
        False if they are unchanged.
    """
    content = (json.dumps(described, indent=2, ensure_ascii=False) + "\n").encode()
    if target.exists() and target.read_bytes() == content:
        return False
    # The note comes first: a file without a note would never be made again.
    with LogWriter(log) as writer:
        writer.add_wrote(target, content, model)
    with files.replacing(target) as temporary:
        temporary.write_bytes(content)
    return True


def _api_key(target: Path, source: str) -> str:
    return api_key(
        f"{target} is missing or out of date, and OpenAI's endpoint, the default, wants a key to ask an LLM: put a "
        "published file there, set OPENAI_API_KEY, set OPENAI_BASE_URL for another server (many need no key), "
        f"or remove '{source}' from sources in params.yaml"
    )


def _check_every_class(described: Descriptions, source: str, prompts: PromptSource, dropped: Counter[str]) -> None:
    if not described:
        raise UserError("the table of classes is empty; run `dvc repro` from the stage ingest on")
    without = [name for name, texts in described.items() if not texts]
    if without:
        others = f" and {len(without) - 1} more classes" if len(without) > 1 else ""
        raise UserError(
            f"no usable description of '{without[0]}'{others} (dropped: {_list_counts(dropped)}); change templates, "
            f"samples (now {prompts.samples}) or max_tokens (now {prompts.max_tokens}) in {paths.prompt_source(source)}"
        )


def _list_counts(dropped: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in dropped.most_common()) or "none"
