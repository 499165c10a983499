"""What is wrong with `params.yaml`, in one line: the problems of a validation, key by key."""

from __future__ import annotations

import re
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from stages.common.errors import nearest


def explain(error: ValidationError, model: type[BaseModel], within: str = "", section: str = "") -> str:
    """The problems of a validation as one line: key, what is wrong, what is allowed.

    Args:
        model: the whole of what was validated.
        within: what stands before each key.
        section: the key of the section of `model` that was validated, if not all of it.
    """
    inside = [section] if section else []
    explained = (_explain_one(dict(problem), within, inside, model) for problem in error.errors())
    return "; ".join(dict.fromkeys(explained))


def _explain_one(problem: dict, within: str, inside: list[str], model: type[BaseModel]) -> str:
    where = [*inside, *(str(part) for part in problem["loc"])]
    key = within + ".".join(part for part in where if not re.search(r"[\[(]", part))
    if problem["type"] == "extra_forbidden":
        allowed = _allowed_keys(model, where[:-1])
        return f"{key}: unknown key{nearest(where[-1], allowed)}; allowed here: {', '.join(allowed)}"
    if problem["type"] == "missing":
        return f"{key}: missing"
    if where and where[-1] == "[key]" and not isinstance(problem["input"], str):
        read_as = type(problem["input"]).__name__
        return f"{key}: YAML reads this key as {problem['input']!r} ({read_as}); write it in quotes to make it a name"
    if where and where[-1] == "[key]":
        return f"{key}: a key may contain letters, digits, '_' and '-' only"
    message = problem["msg"].removeprefix("Value error, ")
    got = "" if problem["type"] == "value_error" else f", not {problem['input']!r:.200}"
    return f"{key}: {message}{got}" if key else message


def _allowed_keys(model: type[BaseModel], where: list[str]) -> list[str]:
    """The keys that the section of `model` at `where` knows."""
    section, index = model, 0
    while index < len(where):
        field = section.model_fields.get(where[index])
        annotation: Any = field.annotation if field else None
        # The section itself, one that may be null, or a mapping of keys to sections.
        index += 2 if get_origin(annotation) is dict else 1
        for child in (annotation, *get_args(annotation)):
            if isinstance(child, type) and issubclass(child, BaseModel):
                section = child
    return list(section.model_fields)
