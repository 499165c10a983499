"""Which classes are held out of the mixture, and which images conversations are made of (FINER, section 5)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stages.common.seeding import generator, order_key
from stages.finer.attributes import Concept
from stages.finer.unified import Sample


@dataclass(frozen=True)
class Class:
    """A class as the artifacts of earlier stages have it."""

    name: str
    answer: str
    """The fine label that a conversation about it ends with."""
    superordinate: str | None
    """None where no image of the class is in the unified files."""
    required: list[str]


def classes_of(concepts: Sequence[Concept], samples: Iterable[Sample]) -> list[Class]:
    """The classes by label.

    Args:
        samples: of both unified files. A class without an image goes by its name alone.
    """
    first: dict[int, Sample] = {}
    for sample in samples:
        first.setdefault(sample.label, sample)
    return [
        Class(
            concept.name,
            first[label].fine[0] if label in first else concept.name,
            first[label].superordinate if label in first else None,
            concept.binomial.required,
        )
        for label, concept in enumerate(concepts)
    ]


def groups_of(classes: Sequence[Class]) -> list[str]:
    """What the conversations are spread over: answers, or superordinates where those differ (iNaturalist)."""
    if len({found.superordinate for found in classes} - {None}) > 1:
        return [found.superordinate or "" for found in classes]
    return [found.answer for found in classes]


def held_out_classes(seed: int, dataset: str, names: Sequence[str], share: float) -> list[str]:
    """The answers of the classes that no conversation is made of, drawn by name, in the order of `names`.

    Their number is rounded, half up. If there are two or more classes, at least one is held out and at least one is
    left.
    """
    if share == 0 or len(names) < 2:
        return []
    count = min(max(math.floor(share * len(names) + 0.5), 1), len(names) - 1)
    drawn = sorted(names, key=lambda name: (generator(seed, "held-out", dataset, name).random(), name))[:count]
    return [name for name in names if name in set(drawn)]


def choose(seed: int, dataset: str, samples: Iterable[Sample], groups: Sequence[str], per_dataset: int) -> list[Sample]:
    """From each group at most `per_dataset` divided by the number of groups, and at least one.

    They are drawn by image, so that neither the order nor other images matter, and come in the order of `idx`.

    Args:
        groups: by label, as `groups_of` gives them.
    """
    limit = max(1, per_dataset // len(set(groups)))
    ranked: dict[str, list[tuple[bytes, int, Sample]]] = {}
    for sample in samples:
        place = order_key(seed, "chosen", dataset, sample.image_id)
        ranked.setdefault(groups[sample.label], []).append((place, sample.idx, sample))
    chosen = [row for rows in ranked.values() for row in sorted(rows, key=lambda row: row[:2])[:limit]]
    return [sample for _, _, sample in sorted(chosen, key=lambda row: row[1])]
