"""Coarse labels as FINER (arXiv 2402.16315) publishes them, by its rules."""

from __future__ import annotations

import re
from collections.abc import Mapping

from stages.common.names import spelling

BODIES = ("sedan", "SUV", "coupe", "convertible", "pickup", "hatchback", "van")
"""The body styles of Stanford Cars: the closed list of the published question, in its order."""

_WORDS = {"Cab": "pickup", "SuperCab": "pickup", "Wagon": "hatchback"}
"""The published labels of names that have one of these words instead of a body style of the list."""

_NAMED = {
    "sedan": ["Acura TL Type-S", "Buick Regal GS", "Chevrolet Cobalt SS", "Chrysler 300 SRT-8", "Dodge Charger SRT-8"],
    "SUV": ["Chevrolet HHR SS", "Chevrolet TrailBlazer SS", "HUMMER H2 SUT Crew Cab"],
    "coupe": [
        "Acura Integra Type R",
        "Chevrolet Corvette ZR1",
        "Chevrolet Corvette Ron Fellows Edition Z06",
        "Dodge Challenger SRT8",
        "Jaguar XK XKR",
        "Lamborghini Gallardo LP 570-4 Superleggera",
    ],
    "hatchback": ["FIAT 500 Abarth"],
    "van": ["Audi 100 Wagon"],
}
"""The published labels of the models whose names, without the year, do not follow a rule."""

_BODY_OF = {spelling(model): body for body, models in _NAMED.items() for model in models}


def car_body(name: str) -> list[str]:
    """The body style of one of Stanford Cars' classes, "Audi S4 Sedan 2012"; none if the name has none.

    It is the first of the list whose letters occur in the name, so "Minivan" is a van. For other names it is what a
    language model
    said for FINER's authors.
    """
    written = next((body for body in BODIES if body.lower() in name.lower()), None)
    if written:
        return [written]
    known = _BODY_OF.get(spelling(re.sub(r"\s*\d{4}$", "", name)))
    found = known or next((body for word, body in _WORDS.items() if word in name.split()), None)
    return [found] if found else []


def without_qualifier(name: str) -> str:
    """A name of NABirds without its parenthesis: "Common Eider (Adult male)" is a "Common Eider"."""
    return " ".join(re.sub(r"\(.+?\)", "", name, count=1).split())


def bird_groups(class_id: str, names: Mapping[str, str], parent_of: Mapping[str, str]) -> list[str]:
    """The groups of one of NABirds' classes: the node above it in the tree, or above its species, taken apart.

    "Ducks, Geese, and Swans" are Ducks, Geese and Swans. The root, all birds, is not a group.

    Args:
        class_id: of the class, a leaf.
        names: of all nodes.
        parent_of: id -> id of the node above; the root has none.
    """
    name, node = names[class_id], parent_of.get(class_id, "")
    above = parent_of.get(node, "")
    is_species = "(" in name or spelling(names.get(node, "")) in spelling(name)
    if is_species and above in parent_of:
        node = above
    if node not in parent_of:
        return []
    return [part for part in re.split(r",\s*(?:and\s+)?|\s+and\s+", names[node]) if part]
