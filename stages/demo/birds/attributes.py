"""What is visible of a drawn bird, as phrases of one wording each, and the demo's concept-attribute file.

The file has the published format of FINER (arXiv 2402.16315); ``describe_demo.py`` writes it.
"""

from typing import Any

from stages.demo.birds.draw import Box
from stages.demo.birds.species import ATTRIBUTES, SPECIES, Look

PHRASES: dict[str, str] = {
    "crown": "{value} crown",
    "back": "{value} back and wings",
    "belly": "{value} belly",
    "tail": "{value} tail",
    "legs": "{value} legs",
    "beak": "{value} beak",
    "wing": "{value} wings",
    "beak_shape": "{value} beak",
    "tail_length": "{value} tail",
}
"""Attribute -> phrase. The family is no attribute: it is what the bird is, at the level above."""

PARTS: dict[str, str] = {"wing": "back", "beak_shape": "beak", "tail_length": "tail"}
"""Attribute -> the part of a drawing that shows it, where that is not the part of the same name."""

EYE = "dark eye in a pale ring"
PERCHES = {"wader": "standing on the ground"}
"""Where the drawing program puts a family (scene.perch): waders stand on the ground, the others most often do not."""

ELSEWHERE = "perched on a branch"


def required_attributes(look: Look) -> list[str]:
    """What every drawing of this look shows."""
    return [PHRASES[name].format(value=getattr(look, name)) for name in ATTRIBUTES if name in PHRASES]


def attribute_boxes(boxes: dict[str, Box]) -> list[Box]:
    """Where each of `required_attributes` is, in the units of `boxes`, by part."""
    return [boxes[PARTS.get(name, name)] for name in ATTRIBUTES if name in PHRASES]


def likely_attributes(look: Look) -> list[str]:
    """What a drawing of this look may show as well."""
    return [EYE, PERCHES.get(look.family, ELSEWHERE)]


def concepts() -> list[dict[str, Any]]:
    """The concept-attribute file's entries, one a species."""
    return [
        {
            "id": number,
            "name": species.name,
            "attr_binomial": {"required": required_attributes(species), "likely": likely_attributes(species)},
        }
        for number, species in enumerate(SPECIES)
    ]
