"""Closed lists of options: the published ones, and a rule for other data sets.

A list holds exactly one right option. An option is right if a gold label occurs in it by the published exact match,
which compares letters: "bird" occurs in "Birds", and "ant" in "Plants".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from stages.common.errors import warn
from stages.common.names import spelling
from stages.finer.matching import normalise

ORGANISMS = (
    "Arachnids", "Mammals", "Reptiles", "Animalia", "Mollusks", "Plants", "Amphibians", "Ray-finned Fishes", "Birds",
    "Insects", "Fungi",
)  # fmt: skip
"""Published for iNaturalist (whose supercategories these are), CUB-200-2011 and NABirds."""

DOGS_AND_OTHERS = (
    "Arachnids", "Dogs", "Reptiles", "Mollusks", "Plants", "Amphibians", "Ray-finned Fishes", "Birds", "Insects",
    "Fungi",
)  # fmt: skip
"""Published for Stanford Dogs: without mammals and animals, because dogs are both."""

OBJECTS = ("Airplane", "Car", "Train", "Bicycle", "Cell Phone", "Plants", "Dogs", "Birds", "Trucks")
"""Published for FGVC-Aircraft and Stanford Cars."""

BODIES = ("Sedan", "SUV", "Coupe", "Convertible", "Pickup", "Hatchback", "Van")
"""Published for the coarse question of Stanford Cars."""

MANUFACTURERS = (
    "Embraer", "Lockheed Corporation", "Douglas Aircraft Company", "Cirrus Aircraft", "Airbus", "Antonov",
    "de Havilland", "Eurofighter", "Cessna", "Tupolev", "Dornier", "Yakovlev", "Panavia", "Robin", "ATR", "Beechcraft",
    "Dassault Aviation", "Fairchild", "McDonnell Douglas", "Fokker", "Gulfstream Aerospace", "Boeing", "Saab",
    "Canadair", "Lockheed Martin", "Supermarine", "Ilyushin", "British Aerospace", "Piper", "Bombardier Aerospace",
)  # fmt: skip
"""Published for the coarse question of FGVC-Aircraft."""

_NATURE = "animal organism being creature life wildlife species nature"
_FAUNA = f"{_NATURE} fauna pet"
_VEHICLES = "vehicle transport machine object thing item"

OVERLAPS = {
    "Arachnids": f"{_FAUNA} spider scorpion mite tick bug arthropod",
    "Dogs": f"{_FAUNA} mammal puppy wolf fox canine canid carnivore",
    "Reptiles": f"{_FAUNA} snake lizard turtle tortoise crocodile gecko",
    "Mollusks": f"{_FAUNA} mollusc snail slug shell clam squid octopus food dish seafood",
    "Plants": f"{_NATURE} flower tree shrub herb grass weed fern moss leaf crop fruit vegetable food dish place scene "
    "land landscape garden",
    "Amphibians": f"{_FAUNA} frog toad newt salamander",
    "Ray-finned Fishes": f"{_FAUNA} fish fishe food dish seafood",
    "Birds": f"{_FAUNA} owl duck parrot hawk eagle gull songbird fowl poultry raptor waterfowl",
    "Insects": f"{_FAUNA} butterfly moth beetle bug bee wasp ant fly dragonfly arthropod",
    "Fungi": f"{_NATURE} mushroom fungus lichen mold mould yeast toadstool food dish",
    "Airplane": f"{_VEHICLES} aircraft aeroplane plane jet airliner helicopter",
    "Car": f"{_VEHICLES} automobile auto sedan suv van motor taxi",
    "Train": f"{_VEHICLES} railway locomotive tram rail",
    "Bicycle": f"{_VEHICLES} bike cycle motorcycle action sport activity",
    "Cell Phone": "phone smartphone telephone mobile device gadget electronic object thing item product machine",
    "Trucks": f"{_VEHICLES} lorry van pickup automobile auto motor bus",
}
"""Options for other data sets, and words of superordinates that may describe the same thing. "Mammals" and "Animalia"
are left out, because they describe too much."""

_LIVING = frozenset(DOGS_AND_OTHERS)
_NO_LIVING_THING = "texture pattern building furniture instrument food dish action place scene landscape land"


@dataclass(frozen=True)
class Closed:
    """A closed list of a coarse question, and what the question asks for."""

    level: str
    options: tuple[str, ...]


COARSE = {"airplane": Closed("manufacturer", MANUFACTURERS), "car": Closed("body style", BODIES)}
"""Superordinate -> the published closed list of its coarse question. Others have none."""


def singular(label: str) -> str:
    """A label in one spelling, without the "s" of a plural."""
    return spelling(label).removesuffix("s")


_PUBLISHED = {singular(name): name for name in (*OBJECTS, *DOGS_AND_OTHERS, *ORGANISMS)}


def listed_form(superordinate: str) -> str:
    """A superordinate label as a closed list writes it: "Birds" for "bird", or the label itself."""
    form = _PUBLISHED.get(singular(superordinate), superordinate)
    return form if normalise(superordinate) in normalise(form) else superordinate


def superordinate_list(superordinates: Iterable[str]) -> list[str]:
    """The closed list of the superordinate question for a data set with these superordinate labels.

    It is the published list that has all of them. Otherwise it is the labels themselves and those of `OVERLAPS` that
    cannot describe the same things.
    """
    # Of "Bird" and "Birds" the longer one, because both occur in it.
    own = list({singular(label): label for label in sorted(set(superordinates), key=len)}.values())
    wanted = {singular(label) for label in own}
    for published in (ORGANISMS, DOGS_AND_OTHERS, OBJECTS):
        if wanted <= {singular(name) for name in published}:
            own_forms = {singular(label): listed_form(label) for label in own}
            return [own_forms.get(singular(name), name) for name in published]
    others = [option for option in OVERLAPS if not any(_may_be(option, label) for label in own)]
    return sorted([*map(listed_form, own), *others], key=str.casefold)


def coarse_list(dataset: str, superordinates: Iterable[str], coarse: Collection[str]) -> Closed | None:
    """The closed list of a data set's coarse question: a published one that has all of its coarse labels, or none.

    A warning says so if the list has some of the labels but not all.
    """
    above = {singular(label) for label in superordinates}
    closed = COARSE.get(min(above)) if len(above) == 1 else None
    if closed is None or not coarse:
        return None
    known = {spelling(option) for option in closed.options}
    others = sorted(label for label in coarse if spelling(label) not in known)
    if not others:
        return closed
    if len(others) < len(coarse):
        warn(
            f"{dataset}: the published list of the coarse question ({closed.level}) lacks {len(others)} of "
            f"{len(coarse)} coarse labels, such as '{others[0]}'; the question is asked without the list"
        )
    return None


def one_right(options: Sequence[str], right: Sequence[str], golds: Sequence[str]) -> list[str]:
    """The options without the wrong ones that would count as right.

    Args:
        right: labels of the question's level.
        golds: all labels that count as right. An option in which one of them occurs would score.
    """
    forms = {spelling(listed_form(label)) for label in right} | {spelling(label) for label in right}
    first = next((option for option in options if spelling(option) in forms), None)
    wanted = [gold for gold in map(normalise, golds) if gold]
    return [option for option in options if option == first or not any(gold in normalise(option) for gold in wanted)]


@lru_cache(maxsize=1 << 12)
def _may_be(option: str, label: str) -> bool:
    """Whether an option could describe a thing with this superordinate label."""
    words = {singular(word) for word in spelling(label).split()}
    if words & {singular(word) for word in f"{spelling(option)} {OVERLAPS[option]}".split()}:
        return True
    if option in _LIVING and not words & _known_words():
        return True  # the label is unknown, so it may be a living thing
    one, other = normalise(option), normalise(label)
    return one in other or other in one


@lru_cache(maxsize=1)
def _known_words() -> frozenset[str]:
    named = " ".join([*map(spelling, OVERLAPS), *OVERLAPS.values(), _NO_LIVING_THING])
    return frozenset(singular(word) for word in named.split())
