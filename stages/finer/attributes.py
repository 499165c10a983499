"""Concept-attribute files in the published format: required and likely visible attributes of each concept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from stages.common.digests import is_damaged, signed
from stages.common.errors import UserError
from stages.common.jsons import read_json
from stages.common.names import spelling
from stages.common.tables import json_text, write_json, write_text

SHAPE = "[{id, name, attr_binomial: {required: [...], likely: [...]}}, ...]"
PRUNED = ("fine", "required")
"""Keys of an entry of the published pruned files, which name a class by its fine labels."""


@dataclass(frozen=True)
class Attributes:
    """Visible, physical attributes that a concept always has, and those that it often has."""

    required: list[str]
    likely: list[str]


@dataclass(frozen=True)
class Concept:
    """One entry: `id`, `name`, `attr_binomial`; for iNaturalist also `common_name` and `attr_common`.

    An entry of a pruned file has `fine`: all of its labels; the first is the name.
    """

    id: int
    name: str
    binomial: Attributes
    common_name: str | None = None
    common: Attributes | None = None
    fine: tuple[str, ...] = ()

    @property
    def attributes(self) -> Attributes:
        """The attributes for the binomial, or those for the common name if the former require nothing."""
        return self.common if self.common and self.common.required and not self.binomial.required else self.binomial


def attributes_json(concepts: Iterable[Concept]) -> str:
    """The file's text."""
    return json_text([_entry(concept) for concept in concepts])


def write_attributes(path: Path, concepts: Iterable[Concept]) -> None:
    """Write the file, whole or not at all."""
    write_text(path, attributes_json(concepts))


def write_by_class(path: Path, concepts: Sequence[Concept]) -> None:
    """Write the concept of each class, in the order of their labels, with digests."""
    write_json(path, [signed(_entry(own), len(concepts), place) for place, own in enumerate(concepts)])


def _entry(concept: Concept) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": concept.id, "name": concept.name}
    if concept.common_name is not None:
        entry["common_name"] = concept.common_name
    entry["attr_binomial"] = {"required": concept.binomial.required, "likely": concept.binomial.likely}
    if concept.common is not None:
        entry["attr_common"] = {"required": concept.common.required, "likely": concept.common.likely}
    return entry


def read_attributes(path: Path) -> list[Concept]:
    """The entries of a concept-attribute file. An entry without `id` gets its place in the file as its id.

    Raises:
        UserError: no such file, one that is not of the format, or two entries of one name.
    """
    try:
        found = read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; put a published file there or run `make finer`") from None
    concepts = _concepts(path, found)
    first: dict[frozenset[str], int] = {}
    for place, concept in enumerate(concepts):
        other = first.setdefault(spellings(concept.fine or (concept.name,)), place)
        if other != place:
            raise UserError(
                f"{path}: entries {other + 1} and {place + 1} are of one concept, '{concepts[other].name}' and "
                f"'{concept.name}'; keep one"
            )
    return concepts


def spellings(names: Iterable[str]) -> frozenset[str]:
    """Names in the one spelling in which they are compared."""
    return frozenset(map(spelling, names))


def read_by_class(path: Path, names: Mapping[int, str]) -> list[Concept]:
    """The concepts by label in a file that `concepts` made: one for each class, under the class's name.

    Args:
        names: label -> name of the classes that will be looked up (`unified.class_names`).

    Raises:
        UserError: no such file, one that is not of the format or not as it was written, or one that has other names
            for these classes.
    """
    make = f"run `python -m stages.finer.concepts --dataset {path.stem}`"
    try:
        found = read_json(path, make)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {make}") from None
    concepts = _concepts(path, found)
    if any(is_damaged(entry, len(found), place) for place, entry in enumerate(found)):
        raise UserError(f"{path} is damaged: it is not what was written; {make}")
    if any(label >= len(concepts) or concepts[label].name != name for label, name in names.items()):
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
    """Lists of texts. "none" is dropped: published files have it instead of an empty list."""
    if not isinstance(value, dict):
        raise UserError(f"{where} must be {{required: [...], likely: [...]}}, not {value!r}")
    lists = []
    for key in ("required", "likely"):
        texts = value.get(key)
        if not isinstance(texts, list) or not all(map(_is_name, texts)):
            raise UserError(f"{where}.{key} must be a list of texts, not {texts!r}")
        lists.append([text for text in texts if spelling(text) != "none"])
    return Attributes(*lists)
