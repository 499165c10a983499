"""Concept-attribute files in the published format: what must and what may be visible of each concept."""

from __future__ import annotations

from dataclasses import dataclass


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
