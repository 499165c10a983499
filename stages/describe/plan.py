"""What the stage would do for a data set and a source: use an existing file, or get requests answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stages.common import paths
from stages.common.descriptions import Descriptions, read_descriptions
from stages.common.errors import UserError
from stages.common.labels import read_classes
from stages.common.params import Describe, load_params
from stages.common.requests import Request
from stages.common.responses import Records, read_log, sha256
from stages.describe.prompts import ClassName, PromptSource, build_requests, class_names, load_source


@dataclass(frozen=True)
class Plan:
    """`found`: the descriptions of an existing file. Otherwise `requests`, made by `prompts`, are to be answered."""

    target: Path
    log: Path
    prompts_file: Path
    records: Records
    found: Descriptions | None = None
    prompts: PromptSource | None = None
    requests: tuple[Request, ...] = ()
    taken: Path | None = None
    """The file of another data set with the same classes, from which `found` are."""

    def missing(self) -> list[Request]:
        """Requests without an answer in the log."""
        return [request for request in self.requests if request.digest not in self.records.answers]


def names_of_table(dataset: str) -> list[ClassName]:
    return class_names(read_classes(dataset).table)


def make_plan(
    dataset: str, source: str, settings: Describe, names_of: Callable[[str], list[ClassName]] = names_of_table
) -> Plan:
    """Look at what exists; nothing is sent or written.

    Args:
        names_of: gives the classes of a data set.

    Raises:
        UserError: the existing file is not of its format, or an input is missing or wrong.
    """
    target, prompts = paths.descriptions(dataset, source), paths.prompt_source(source)
    log = paths.responses(dataset, source)
    records = read_log(log)
    if target.exists():
        found = read_descriptions(target)
        own = sha256(target.read_bytes()) in records.wrote
        if not own or not prompts.exists():
            return Plan(target, log, prompts, records, found)
    else:
        taken = _file_of_the_same_classes(dataset, source)
        if taken is not None:
            return Plan(target, log, prompts, records, read_descriptions(taken), taken=taken)
    prompt_source = _load_source(target, prompts)
    requests = build_requests(prompt_source, names_of(dataset), settings.model, dataset)
    return Plan(target, log, prompts, records, None, prompt_source, tuple(requests))


def _file_of_the_same_classes(dataset: str, source: str) -> Path | None:
    """The description file of the data set that the classes were taken from, if there is one."""
    if paths.classes(dataset).exists():
        other = read_classes(dataset).parameters.taken_from
    else:  # an estimate before `ingest` has run
        params = load_params()
        named = params.datasets[dataset].classes
        other = named if isinstance(named, str) and named in params.datasets else None
    path = paths.descriptions(other, source) if other else None
    return path if path is not None and path.exists() else None


def _load_source(target: Path, prompts: Path) -> PromptSource:
    if not prompts.exists():
        raise UserError(
            f"{target} and {prompts} are both missing: put a published file at the first, "
            "or write a prompt source at the second"
        )
    return load_source(prompts)
