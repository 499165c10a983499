"""The demo's fictional bird species: what their parts look like, and what they are called."""

from dataclasses import dataclass

import numpy as np

RGB = tuple[int, int, int]

SUPERORDINATE = "bird"

COLOURS: dict[str, RGB] = {
    "red": (201, 48, 44),
    "orange": (238, 128, 36),
    "yellow": (247, 209, 64),
    "green": (74, 148, 74),
    "blue": (52, 104, 192),
    "purple": (128, 72, 160),
    "brown": (124, 80, 48),
    "black": (42, 40, 46),
    "white": (245, 243, 236),
    "grey": (143, 148, 154),
}
PLUMAGE = tuple(COLOURS)
BARE_PARTS = ("red", "orange", "yellow", "black", "grey")  # legs and beaks
WINGS = ("plain", "barred", "spotted", "edged")
BEAK_SHAPES = ("conical", "straight", "hooked", "curved")
TAIL_LENGTHS = ("short", "long")
FAMILIES = ("finch", "wader", "parrot", "swallow")


@dataclass(frozen=True)
class Look:
    """What can be seen of a bird; each field is one attribute. Back and wings share a colour."""

    family: str
    crown: str
    back: str
    belly: str
    tail: str
    legs: str
    beak: str
    wing: str
    beak_shape: str
    tail_length: str

    def differences(self, other: "Look") -> int:
        """In how many attributes two looks differ, whatever they are called."""
        return sum(getattr(self, name) != getattr(other, name) for name in ATTRIBUTES)


# Every attribute and its possible values, in the order of Look's fields.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "family": FAMILIES,
    "crown": PLUMAGE,
    "back": PLUMAGE,
    "belly": PLUMAGE,
    "tail": PLUMAGE,
    "legs": BARE_PARTS,
    "beak": BARE_PARTS,
    "wing": WINGS,
    "beak_shape": BEAK_SHAPES,
    "tail_length": TAIL_LENGTHS,
}


@dataclass(frozen=True)
class Species(Look):
    """A named look. The name hints at one attribute at most."""

    name: str


def _species(name: str, look: str) -> Species:
    return Species(**dict(zip(ATTRIBUTES, look.split(), strict=True)), name=name)


SPECIES: tuple[Species, ...] = (
    # name, then the attributes in the order of Look's fields
    _species("red-crowned tavo", "finch red brown white brown orange black barred conical short"),
    _species("black-crowned tavo", "finch black brown white brown orange black barred conical short"),
    _species("spot-winged tavo", "finch red brown white brown orange yellow spotted conical short"),
    _species("yellow-bellied tavo", "finch red brown yellow brown orange black barred conical long"),
    _species("green-backed pimlo", "finch yellow green orange black grey yellow plain conical long"),
    _species("white-tailed pimlo", "finch yellow green orange white grey yellow plain conical long"),
    _species("lesser pimlo", "finch yellow green grey black grey yellow edged conical short"),
    _species("yellow-legged orrel", "wader blue grey white black yellow black plain straight short"),
    _species("red-legged orrel", "wader blue grey white black red black plain straight short"),
    _species("bow-billed orrel", "wader blue grey white black yellow black barred curved short"),
    _species("brown-backed sarn", "wader white brown orange brown yellow red spotted straight long"),
    _species("bar-winged sarn", "wader white brown orange brown yellow red barred straight long"),
    _species("purple-crowned sarn", "wader purple brown orange grey yellow red barred straight long"),
    _species("blue-tailed kibba", "parrot red green yellow blue grey black plain hooked long"),
    _species("red-tailed kibba", "parrot red green yellow red grey black plain hooked long"),
    _species("purple-bellied kibba", "parrot red green purple blue grey black edged hooked long"),
    _species("orange-billed vosk", "parrot white blue grey blue black orange edged hooked short"),
    _species("black-billed vosk", "parrot white blue grey blue black black edged hooked short"),
    _species("great vosk", "parrot orange blue grey blue black black edged hooked long"),
    _species("black-backed zirrel", "swallow orange black white black red grey plain curved long"),
    _species("red-bellied zirrel", "swallow orange black red black red grey plain curved long"),
    _species("short-tailed zirrel", "swallow orange black white black red grey plain curved short"),
    _species("purple-backed quenn", "swallow grey purple yellow white black red spotted conical long"),
    _species("plain-winged quenn", "swallow grey purple yellow white black red plain conical long"),
    _species("green-tailed quenn", "swallow grey purple yellow green black red spotted conical short"),
)


def random_look(rng: np.random.Generator) -> Look:
    """Attributes drawn evenly, but none within one difference of a species of the demo."""
    while True:
        look = Look(**{name: str(rng.choice(values)) for name, values in ATTRIBUTES.items()})
        if all(look.differences(species) > 1 for species in SPECIES):
            return look
