"""Concept-attribute files in the published format: what must and what may be visible of each concept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.common.errors import UserError, nearest, warn
from stages.common.jsons import read_json
from stages.common.names import spelling
from stages.common.tables import write_text

SHAPE = "[{id, name, attr_binomial: {required: [...], likely: [...]}}, ...]"
SHOWN = 10


@dataclass(frozen=True)
class Attributes:
    """Visible, physical attributes: those that the concept must have, and those that it is likely to have."""

    required: list[str]
    likely: list[str]


@dataclass(frozen=True)
class Concept:
    """One entry: `id`, `name`, `attr_binomial`; of iNaturalist also `common_name` and `attr_common`."""

    id: int
    name: str
    binomial: Attributes
    common_name: str | None = None
    common: Attributes | None = None


def attributes_json(concepts: Iterable[Concept]) -> str:
    """The file's text."""
    return json.dumps([_entry(concept) for concept in concepts], indent=2, ensure_ascii=False) + "\n"


def write_attributes(path: Path, concepts: Iterable[Concept]) -> None:
    """Write the file, whole or not at all."""
    write_text(path, attributes_json(concepts))


def _entry(concept: Concept) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": concept.id, "name": concept.name}
    if concept.common_name is not None:
        entry["common_name"] = concept.common_name
    entry["attr_binomial"] = {"required": concept.binomial.required, "likely": concept.binomial.likely}
    if concept.common is not None:
        entry["attr_common"] = {"required": concept.common.required, "likely": concept.common.likely}
    return entry


def read_attributes(path: Path) -> list[Concept]:
    """The entries of a concept-attribute file; one without `id` has its place in the file.

    Raises:
        UserError: no such file, one that is not of the format, or two entries of one name.
    """
    try:
        found = read_json(path)
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing; put a published file there or run `dvc repro stages/finer/dvc.yaml`"
        ) from None
    concepts = _concepts(path, found)
    first: dict[str, int] = {}
    for place, concept in enumerate(concepts):
        other = first.setdefault(spelling(concept.name), place)
        if other != place:
            raise UserError(
                f"{path}: entries {other + 1} and {place + 1} are of one concept, '{concepts[other].name}' and "
                f"'{concept.name}'; keep one"
            )
    return concepts


def read_by_class(path: Path, names: Sequence[str]) -> list[Concept]:
    """The concepts by label in a file that `concepts` has made: one each class under its name.

    Raises:
        UserError: no such file, one that is not of the format, or one of other classes.
    """
    make = f"run `dvc repro stages/finer/dvc.yaml:concepts@{path.stem}`"
    try:
        concepts = _concepts(path, read_json(path, make))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {make}") from None
    if [concept.name for concept in concepts] != list(names):
        raise UserError(f"{path} is not of the present classes; {make}")
    return concepts


def _concepts(path: Path, found: Any) -> list[Concept]:
    if not isinstance(found, list):
        raise UserError(f"{path} must hold {SHAPE}")
    return [_concept(path, place, entry) for place, entry in enumerate(found)]


def _concept(path: Path, place: int, entry: Any) -> Concept:
    where = f"{path}, entry {place + 1}"
    if not isinstance(entry, dict):
        raise UserError(f"{where}: not an object; the file must hold {SHAPE}")
    name, number, common_name = entry.get("name"), entry.get("id", place), entry.get("common_name")
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"{where}: no `name`; the file must hold {SHAPE}")
    where = f"{where} ('{name}')"
    if type(number) is not int:
        raise UserError(f"{where}: `id` must be a whole number, not {number!r}")
    if not (common_name is None or isinstance(common_name, str)):
        raise UserError(f"{where}: `common_name` must be a name, not {common_name!r}")
    if "attr_binomial" not in entry:
        raise UserError(f"{where}: no `attr_binomial`; the file must hold {SHAPE}")
    common = entry.get("attr_common")
    return Concept(
        number,
        name,
        _attributes(f"{where}: `attr_binomial`", entry["attr_binomial"]),
        common_name,
        None if common is None else _attributes(f"{where}: `attr_common`", common),
    )


def _attributes(where: str, value: Any) -> Attributes:
    if not isinstance(value, dict):
        raise UserError(f"{where} must be {{required: [...], likely: [...]}}, not {value!r}")
    lists = []
    for key in ("required", "likely"):
        texts = value.get(key)
        if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
            raise UserError(f"{where}.{key} must be a list of texts, not {texts!r}")
        lists.append(texts)
    return Attributes(*lists)


def match_concepts(
    path: Path, concepts: Sequence[Concept], names: Sequence[str], fine: Sequence[Sequence[str]]
) -> list[Concept]:
    """The concept of each class, in order of labels; one may be that of several classes (an aircraft's family).

    Args:
        path: of the file, for messages.
        names: of the classes.
        fine: of each class, every name by which it is right. The class's own is looked for first.

    Raises:
        UserError: classes without a concept.
    """
    concept_of: dict[str, Concept] = {spelling(concept.name): concept for concept in concepts}
    for concept in concepts:
        if concept.common_name:
            concept_of.setdefault(spelling(concept.common_name), concept)
    matched, missing = [], []
    for name, others in zip(names, fine, strict=True):
        found = next((concept_of[form] for form in map(spelling, (name, *others)) if form in concept_of), None)
        if found is None:
            missing.append(name)
        else:
            matched.append(found)
    if missing:
        known = [concept.name for concept in concepts]
        some = [f"'{name}'{nearest(name, known)}" for name in missing[:SHOWN]]  # the nearest takes its time
        raise UserError(
            f"{path} has no concept of {len(missing)} of {len(names)} classes: {_some(some, len(missing))}; add them, "
            "or remove the file to have all asked for"
        )
    used = {spelling(concept.name) for concept in matched}
    unknown = [f"'{concept.name}'" for concept in concepts if spelling(concept.name) not in used]
    if unknown:
        them = _some(unknown, len(unknown))
        warn(f"{path}: {len(unknown)} concepts are no class of the data set and are left out: {them}")
    return matched


def _some(items: Sequence[str], count: int) -> str:
    """The first of `count` items."""
    more = f" and {count - SHOWN} more" if count > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more
