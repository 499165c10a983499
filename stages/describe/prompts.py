"""Prompt sources (`descriptions/prompts/<source>.yaml`) and their requests about a table of classes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pyarrow as pa
import yaml
from pydantic import AfterValidator, Field, ValidationError

from stages.common.errors import UserError, nearest
from stages.common.requests import Api, Request
from stages.common.section import Count, Section
from stages.common.templates import fields, fill
from stages.common.yamls import load_yaml
from stages.describe.clean import Parse

Value = TypeVar("Value")

PLACEHOLDERS = ("name", "category")

CATEGORY = "object"
"""What a class is a kind of, if neither the prompt source nor the table of classes says so."""

_RESERVED = ("model", "messages", "prompt", "n", "stream", "temperature", "max_tokens")


def _names_the_class(template: str) -> str:
    if "name" not in fields(template, PLACEHOLDERS):
        raise ValueError("must contain {name}")
    return template


def _own_keys_only(extra: dict[str, Any]) -> dict[str, Any]:
    for key in extra:
        if key in _RESERVED:
            raise ValueError(f"must not hold '{key}', which is set elsewhere")
    return extra


Template = Annotated[str, AfterValidator(_names_the_class)]


class PromptSource(Section):
    """A prompt source: `templates` is the only required key.

    `datasets` has
    questions that replace `templates` for one data set, and `categories` what its classes are a kind of. A data set's
    key may have
    any case and separators.
    """

    templates: Annotated[list[Template], Field(min_length=1)]
    datasets: dict[str, Annotated[list[Template], Field(min_length=1)]] = Field(default_factory=dict)
    paper: str | None = None
    system: str | None = None
    categories: dict[str, str] = Field(default_factory=dict)
    samples: Count = 1
    temperature: Annotated[float, Field(ge=0)] | None = 1.0
    max_tokens: Count | None = 200
    api: Api = "chat"
    parse: Parse = "sentences"
    extra: Annotated[dict[str, Any], AfterValidator(_own_keys_only)] = Field(default_factory=dict)


@dataclass(frozen=True)
class ClassName:
    """A class as prompts name it: its name, and what it is a kind of, if known."""

    name: str
    superordinate: str | None = None


def load_source(path: Path) -> PromptSource:
    """Read and check a prompt source.

    Raises:
        UserError: no such file, not YAML, an unknown or missing key, or a value that is not allowed.
    """
    try:
        raw = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    try:
        return PromptSource.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{path}: {'; '.join(_explain(dict(problem)) for problem in error.errors())}") from None


def _explain(problem: dict[str, Any]) -> str:
    where = [str(part) for part in problem["loc"]]
    key = ".".join(where)
    if problem["type"] == "extra_forbidden":
        allowed = list(PromptSource.model_fields)
        return f"{key}: unknown key{nearest(key, allowed)}; allowed: {', '.join(allowed)}"
    if problem["type"] == "missing":
        return f"{key}: missing; without questions, a published file must be at descriptions/<dataset>/<source>.json"
    message = problem["msg"].removeprefix("Value error, ")
    text = f"{message}, not {problem['input']!r:.200}" if problem["type"] != "value_error" else message
    return f"{key}: {text}" if key else "must be a mapping with the key 'templates'"


def class_names(classes: pa.Table) -> list[ClassName]:
    """The classes of a table, in its order, each once (two ImageNet classes share a name with another)."""
    names = classes.column("name").to_pylist()
    if "superordinate" in classes.column_names:
        superordinates = classes.column("superordinate").to_pylist()
    else:
        superordinates = [None] * len(names)
    return list(dict.fromkeys(map(ClassName, names, superordinates)))


def build_requests(source: PromptSource, classes: Iterable[ClassName], model: str, dataset: str) -> list[Request]:
    """Every request of `source`, in the order class, template, sample, each digest once."""
    requests: dict[str, Request] = {}
    own_category = _of_dataset(source.categories, dataset)
    templates = _of_dataset(source.datasets, dataset) or source.templates
    for entry in classes:
        category = own_category or entry.superordinate or CATEGORY
        for template in templates:
            prompt = fill(template, name=entry.name, category=category)
            body = _body(source, model, prompt)
            for sample in range(source.samples):
                request = Request(entry.name, prompt, sample, source.api, body)
                requests.setdefault(request.digest, request)
    return list(requests.values())


def _of_dataset(values: dict[str, Value], dataset: str) -> Value | None:
    """The entry of a data set, "Oxford-Pets" being the same as "oxford_pets"."""
    spelled = {re.sub(r"[\W_]+", "", key.casefold()): value for key, value in values.items()}
    return spelled.get(re.sub(r"[\W_]+", "", dataset.casefold()))


def _body(source: PromptSource, model: str, prompt: str) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model}
    if source.api == "chat":
        system = [{"role": "system", "content": source.system}] if source.system else []
        body["messages"] = [*system, {"role": "user", "content": prompt}]
    else:
        body["prompt"] = f"{source.system}\n\n{prompt}" if source.system else prompt
    if source.temperature is not None:
        body["temperature"] = source.temperature
    if source.max_tokens is not None:
        body["max_tokens"] = source.max_tokens
    return body | source.extra
