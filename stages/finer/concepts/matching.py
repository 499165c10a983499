"""Finds the concept of each class in an attribute file. Published files have their own names for classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stages.common.errors import UserError, nearest, warn
from stages.common.names import spelling
from stages.finer.attributes import Concept, read_attributes, spellings
from stages.finer.classes import ClassLabels

SHOWN = 10
"""How many names a message gives."""


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
            "add them, or move the file away to have it made again"
        )
    return concepts


def match_concepts(path: Path, concepts: Sequence[Concept], classes: Sequence[ClassLabels]) -> list[Concept]:
    """The concept of each class, in order of labels. Several classes may have the same concept.

    A class's own name is looked up first, then its other names, so an aircraft variant without required attributes gets
    those of its family. Then come the shortened names of published files. `binomial` of the result holds the attributes
    to use.

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
    """Concepts by each of their names."""

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
        self._cut -= {
            spelling(found.name) for found in classes
        }  # a class's own name is not the short form of another's

    def of(self, found: ClassLabels) -> list[Concept]:
        """The concepts that a class may have, the best first."""
        own, *others = map(spelling, found.fine)
        named = self._with(own, found) or self._by_name.get(own, [])
        named = [*named, *(concept for form in others for concept in self._with(form, found))]
        if named:
            return named
        common = [concept for form in (own, *others) for concept in self._by_common.get(form, [])]
        return common or [c for form in _cut(found.name) if form in self._cut for c in self._by_name.get(form, [])]

    def _with(self, form: str, found: ClassLabels) -> list[Concept]:
        """The concepts of a name, without those of a pruned file that also have a name that is not the class's."""
        names = spellings(found.fine)
        same = [c for c in self._by_name.get(form, []) if not c.fine or spellings(c.fine) <= names]
        return sorted(same, key=lambda concept: -len(concept.fine))

    def knows(self, concept: Concept) -> bool:
        names = spellings([*(concept.fine or (concept.name,)), *filter(None, [concept.common_name])])
        return bool(names & (self._known | self._cut))


def _cut(name: str) -> list[str]:
    """The shortened forms of a name in published files: NABirds' without the parenthesis, Stanford Dogs' after the last
    hyphen ("coated retriever", which two breeds share)."""
    return [spelling(re.sub(r"\s*\([^)]*\)", "", name)), spelling(name.rpartition("-")[2])]


def _some(items: Sequence[str], count: int) -> str:
    """The first of `count` items."""
    more = f" and {count - SHOWN} more" if count > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more
