"""Concept-attribute files in the published format: what must and what may be visible of each concept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

from stages.common.errors import UserError, nearest, warn
from stages.common.jsons import read_json
from stages.common.names import spelling
from stages.common.tables import write_text
from stages.finer.classes import ClassLabels

SHAPE = "[{id, name, attr_binomial: {required: [...], likely: [...]}}, ...]"
PRUNED = ("fine", "required")
"""Keys of an entry of the published pruned files, which name a class by its fine labels."""
SHOWN = 10


@dataclass(frozen=True)
class Attributes:
    """Visible, physical attributes: those that the concept must have, and those that it is likely to have."""

    required: list[str]
    likely: list[str]


@dataclass(frozen=True)
class Concept:
    """One entry: `id`, `name`, `attr_binomial`; of iNaturalist also `common_name` and `attr_common`.

    An entry of a pruned file has `fine`, all of its labels, the first of which is the name.
    """

    id: int
    name: str
    binomial: Attributes
    common_name: str | None = None
    common: Attributes | None = None
    fine: tuple[str, ...] = ()

    @property
    def attributes(self) -> Attributes:
        """Those asked for by the binomial, or where these have none that is required, by the common name."""
        return self.common if self.common and self.common.required and not self.binomial.required else self.binomial


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
    first: dict[frozenset[str], int] = {}
    for place, concept in enumerate(concepts):
        other = first.setdefault(_forms(concept.fine or (concept.name,)), place)
        if other != place:
            raise UserError(
                f"{path}: entries {other + 1} and {place + 1} are of one concept, '{concepts[other].name}' and "
                f"'{concept.name}'; keep one"
            )
    return concepts


def _forms(names: Iterable[str]) -> frozenset[str]:
    return frozenset(map(spelling, names))


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
    if "name" not in entry and all(key in entry for key in PRUNED):
        return _pruned(where, place, entry)
    name, number, common_name = entry.get("name"), entry.get("id", place), entry.get("common_name")
    if not _is_name(name):
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


def _pruned(where: str, place: int, entry: dict[str, Any]) -> Concept:
    """An entry with `fine` and `required` (and, if wanted, `likely`) at its top level."""
    fine = entry["fine"]
    names = tuple(filter(_is_name, fine)) if isinstance(fine, list) else ()  # a common name may be blank
    if not names:
        raise UserError(f"{where}: `fine` must be a list of at least one label, not {fine!r}")
    lists = {"required": entry["required"], "likely": entry.get("likely", [])}
    return Concept(place, names[0], _attributes(f"{where} ('{names[0]}')", lists), fine=names)


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value.strip())


def _attributes(where: str, value: Any) -> Attributes:
    """Lists of texts; "none", which published files have in place of an empty list, is dropped."""
    if not isinstance(value, dict):
        raise UserError(f"{where} must be {{required: [...], likely: [...]}}, not {value!r}")
    lists = []
    for key in ("required", "likely"):
        texts = value.get(key)
        if not isinstance(texts, list) or not all(map(_is_name, texts)):
            raise UserError(f"{where}.{key} must be a list of texts, not {texts!r}")
        lists.append([text for text in texts if spelling(text) != "none"])
    return Attributes(*lists)


def class_concepts(path: Path, classes: Sequence[ClassLabels]) -> list[Concept]:
    """The concept of each class, in order of labels, from a concept-attribute file.

    Raises:
        UserError: as `read_attributes`; classes without a concept, or whose concepts have no required attributes.
    """
    concepts = match_concepts(path, read_attributes(path), classes)
    bare = [
        f"'{found.name}'" for found, concept in zip(classes, concepts, strict=True) if not concept.binomial.required
    ]
    if bare:
        raise UserError(
            f"{path} has no required attributes of {len(bare)} of {len(classes)} classes: {_some(bare, len(bare))}; "
            "add them, or move the file away to have it made anew"
        )
    return concepts


def match_concepts(path: Path, concepts: Sequence[Concept], classes: Sequence[ClassLabels]) -> list[Concept]:
    """The concept of each class, in order of labels; one may be that of several classes.

    A class's own name is looked for first, then its other names: an aircraft variant without required attributes has
    those of its family. Then come the forms to which published files cut names. `binomial` of what is returned holds
    the attributes to use.

    Args:
        path: of the file, for messages.

    Raises:
        UserError: classes without a concept.
    """
    index = _Index(concepts, classes)
    matched, missing = [], []
    for found in classes:
        candidates = index.of(found)
        if not candidates:
            missing.append(found.name)
            continue
        chosen = next((concept for concept in candidates if concept.attributes.required), candidates[0])
        matched.append(replace(chosen, binomial=chosen.attributes))
    if missing:
        known = [concept.name for concept in concepts]
        some = [f"'{name}'{nearest(name, known)}" for name in missing[:SHOWN]]  # the nearest takes its time
        raise UserError(
            f"{path} has no concept of {len(missing)} of {len(classes)} classes: {_some(some, len(missing))}; add "
            "them, or remove the file to have all asked for"
        )
    unknown = [f"'{concept.name}'" for concept in concepts if not index.knows(concept)]
    if unknown:
        them = _some(unknown, len(unknown))
        warn(f"{path}: {len(unknown)} concepts are no class of the data set and are left out: {them}")
    return matched


class _Index:
    """Concepts by the names that they go by."""

    def __init__(self, concepts: Sequence[Concept], classes: Sequence[ClassLabels]) -> None:
        self._by_name: dict[str, list[Concept]] = {}
        for concept in concepts:
            for name in concept.fine or (concept.name,):
                self._by_name.setdefault(spelling(name), []).append(concept)
        self._by_common: dict[str, list[Concept]] = {}
        for concept in concepts:
            if concept.common_name:
                self._by_common.setdefault(spelling(concept.common_name), []).append(concept)
        self._known = {spelling(form) for found in classes for form in found.fine}
        self._cut = {form for found in classes for form in _cut(found.name)}
        self._cut -= {spelling(found.name) for found in classes}  # a class's own name is not cut from another's

    def of(self, found: ClassLabels) -> list[Concept]:
        """The concepts that may be a class's, the likeliest first."""
        own, *others = map(spelling, found.fine)
        named = self._with(own, found) or self._by_name.get(own, [])
        named = [*named, *(concept for form in others for concept in self._with(form, found))]
        if named:
            return named
        common = [concept for form in (own, *others) for concept in self._by_common.get(form, [])]
        return common or [c for form in _cut(found.name) if form in self._cut for c in self._by_name.get(form, [])]

    def _with(self, form: str, found: ClassLabels) -> list[Concept]:
        """The concepts of a name, but not those of a pruned file that are also of a name that the class has not."""
        names = _forms(found.fine)
        same = [c for c in self._by_name.get(form, []) if not c.fine or _forms(c.fine) <= names]
        return sorted(same, key=lambda concept: -len(concept.fine))

    def knows(self, concept: Concept) -> bool:
        names = _forms([*(concept.fine or (concept.name,)), *filter(None, [concept.common_name])])
        return bool(names & (self._known | self._cut))


def _cut(name: str) -> list[str]:
    """The forms to which published files cut a name: NABirds' without its parenthesis, Stanford Dogs' behind the last
    hyphen ("coated retriever" of two breeds)."""
    return [spelling(re.sub(r"\s*\([^)]*\)", "", name)), spelling(name.rpartition("-")[2])]


def _some(items: Sequence[str], count: int) -> str:
    """The first of `count` items."""
    more = f" and {count - SHOWN} more" if count > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more
