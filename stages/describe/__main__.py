"""Ask an LLM to describe the classes of a data set, unless their descriptions are there already.

    python -m stages.describe --dataset D --source S

Reads `data/D/classes.parquet` and `descriptions/prompts/S.yaml`, writes `descriptions/D/S.json` and the response log
`data/D/responses/S.jsonl`. The endpoint is any that speaks OpenAI's protocol, given by OPENAI_BASE_URL and
OPENAI_API_KEY.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

from stages.common import paths, tables
from stages.common.cli import parse_job
from stages.common.errors import UserError, run
from stages.common.params import Describe
from stages.describe.clean import Parse, clean
from stages.describe.client import Outcome, ask_all, summarise
from stages.describe.log import LogWriter, Records, ensure_log, read_log, sha256
from stages.describe.prompts import PromptSource, Request, build_requests, class_names, load_source

Descriptions = dict[str, list[str]]


def main() -> None:
    job = parse_job("describe", "Class descriptions from an LLM, or from a file that is there.", "dataset", "source")
    describe(job.dataset, job.source, job.params.describe)


def describe(dataset: str, source: str, settings: Describe) -> None:
    """Make `descriptions/<dataset>/<source>.json`, or check it where it is there and not this stage's own.

    Raises:
        UserError: the file there is not of its format, an input is missing or wrong, there is no API key, or answers
            could not be got; those that were stay in the log.
    """
    target, prompts = paths.descriptions(dataset, source), paths.prompt_source(source)
    log = paths.responses(dataset, source)
    records = read_log(log)
    ensure_log(log)
    if target.exists():
        found = check_descriptions(target)
        own = sha256(target.read_bytes()) in records.wrote
        if not own or not prompts.exists():
            count = sum(map(len, found.values()))
            print(f"{target}: used as it is, {count} descriptions of {len(found)} classes")
            return
    make(dataset, source, settings, target, log)


def make(dataset: str, source: str, settings: Describe, target: Path, log: Path) -> None:
    """Ask for what the log lacks, then write the descriptions that the log's answers give."""
    prompt_source = _load_source(target, paths.prompt_source(source))
    table, _ = tables.read_table(paths.classes(dataset), "classes")
    requests = build_requests(prompt_source, class_names(table), settings.model, dataset)
    records = read_log(log)
    missing = [request for request in requests if request.digest not in records.answers]
    if missing:
        records = ask(missing, settings, _api_key(target, source), target, log)
    described, dropped = sentences(requests, records, prompt_source.parse)
    _check_every_class(described, source, prompt_source, dropped)
    written = write(target, log, described)
    count = sum(map(len, described.values()))
    print(
        f"{target}: {'' if written else 'unchanged, '}{count} descriptions of {len(described)} classes from "
        f"{len(requests)} answers, {len(missing)} of them asked for now; dropped: {_list_counts(dropped)}"
    )


def ask(missing: list[Request], settings: Describe, key: str, target: Path, log: Path) -> Records:
    """Get an answer to each of `missing` into the log; what the log then holds.

    Raises:
        UserError: some could not be got: how many, and why.
    """
    with LogWriter(log) as writer:
        # Another run may have got some of them meanwhile.
        wanted = [request for request in missing if request.digest not in writer.records.answers]
        print(f"{target}: asking {settings.model} for {len(wanted)} answers", flush=True)
        outcome = ask_all(wanted, settings, key, writer)
        if outcome.failures:
            raise UserError(_explain_failures(outcome, len(wanted), target, log))
        return writer.records


def _explain_failures(outcome: Outcome, wanted: int, target: Path, log: Path) -> str:
    why = summarise(outcome.failures)
    if outcome.gave_up:
        mend = "check OPENAI_API_KEY, OPENAI_BASE_URL and describe.model in params.yaml"
        why = f"{outcome.gave_up}, so asking stopped: {why}; {mend}"
    return (
        f"{target} is not written, {wanted - outcome.received} of {wanted} answers are missing: {why}; "
        f"the {outcome.received} received are kept in {log}, and a rerun asks only for the rest"
    )


def sentences(requests: list[Request], records: Records, parse: Parse) -> tuple[Descriptions, Counter[str]]:
    """The descriptions of each class in the order of `requests`, and what was dropped for which reason."""
    described: Descriptions = {request.name: [] for request in requests}
    dropped: Counter[str] = Counter()
    for request in requests:
        reply = records.answers[request.digest]
        kept, reasons = clean(reply.answer, parse, reply.finish_reason)
        described[request.name] += kept
        dropped += reasons
    return described, dropped


def write(target: Path, log: Path, described: Descriptions) -> bool:
    """Write the descriptions and note in the log that they are this stage's own; False where they are there already."""
    content = (json.dumps(described, indent=2, ensure_ascii=False) + "\n").encode()
    if target.exists() and target.read_bytes() == content:
        return False
    # The note comes first: a file that was written and not noted would never be made anew.
    with LogWriter(log) as writer:
        writer.add_wrote(target, content)
    with tables.replacing(target) as temporary:
        temporary.write_bytes(content)
    return True


def check_descriptions(path: Path) -> Descriptions:
    """Read a description file, whoever wrote it.

    Raises:
        UserError: it is not JSON of the shape {class name: [sentence, ...]}.
    """
    mend = "mend it, or move it away to have it made anew"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON in UTF-8 ({error}); {mend}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} must be {{class name: [sentence, ...]}}, not a {type(found).__name__}; {mend}")
    for name, texts in found.items():
        wrong = texts if not isinstance(texts, list) else next((t for t in texts if not isinstance(t, str)), None)
        if not isinstance(texts, list) or any(not isinstance(text, str) for text in texts):
            raise UserError(f"{path}: '{name}' must be a list of sentences, but has {wrong!r:.80}; {mend}")
    return found


def _load_source(target: Path, prompts: Path) -> PromptSource:
    if not prompts.exists():
        raise UserError(
            f"{target} and {prompts} are both missing: put a published file at the first, "
            "or write a prompt source at the second"
        )
    return load_source(prompts)


def _api_key(target: Path, source: str) -> str:
    """The key from the environment, with the address checked as well: the client would only retry a wrong one."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key:
        raise UserError(
            f"{target} is missing or out of date, and there is no key to ask an LLM with: put a published file there, "
            "set OPENAI_API_KEY (and OPENAI_BASE_URL for another endpoint than OpenAI's), "
            f"or remove '{source}' from sources in params.yaml"
        )
    if not key.isascii() or not key.isprintable():
        raise UserError("OPENAI_API_KEY has characters that cannot be sent; copy the key again")
    url = os.environ.get("OPENAI_BASE_URL", "").strip()
    if url and not _is_address(url):
        raise UserError("OPENAI_BASE_URL must be an address such as http://localhost:8000/v1")
    return key


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 80) > 0
    except ValueError:
        return False


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


if __name__ == "__main__":
    run(main)
