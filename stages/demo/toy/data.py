"""The toy model's lessons: to see attributes in drawings of birds of no species, and to know the species in words.

No image of a species is among the drawings. The model sees attributes and knows species in words, and it has to join
the two when it is asked for the species in an image (the modality gap of FINER, arXiv 2402.16315, section 5).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.common.errors import UserError
from stages.finer import prompts
from stages.finer.options import superordinate_list
from stages.finer.promptings import PROMPTINGS, Granularity
from stages.finer.prompts import PHRASINGS

INDEX = "drawings.jsonl"
ATTRIBUTES = PHRASINGS["attributes"]
SPOILT = (0.4, 0.25, 0.2, 0.15)
"""Shares of attribute lists with 0, 1, ... wrong attributes: the model must find the nearest species."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Drawing:
    """An image and what it shows. `boxes` has the place of each attribute: left, top, right, bottom, as shares of the
    sides."""

    image: Path
    superordinate: str
    family: str
    attributes: tuple[str, ...]
    boxes: tuple[Box, ...] | None = None


@dataclass(frozen=True)
class Species:
    """A species in words."""

    name: str
    superordinate: str
    family: str
    attributes: tuple[str, ...]


@dataclass(frozen=True)
class Dialogue:
    """Turns: question, answer, and whether the answer is learnt."""

    turns: tuple[tuple[str, str, bool], ...]
    image: bool
    """Whether the first question shows the image."""


def read_drawings(folder: Path) -> list[Drawing]:
    """The drawings that `drawings.jsonl` lists.

    Raises:
        UserError: the list is missing or not of its format.
    """
    path = folder / INDEX
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path} is missing; make it with `make finer`") from None
    try:
        drawings = [_drawing(folder, json.loads(line)) for line in lines]
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} is not a list of drawings ({type(error).__name__}: {error}); make it again") from None
    if not drawings or len({len(drawing.attributes) for drawing in drawings}) != 1:
        raise UserError(f"{path}: each drawing must have as many attributes as the others; make it again")
    return drawings


def _drawing(folder: Path, line: dict) -> Drawing:
    boxes = tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in line["boxes"]) if "boxes" in line else None
    return Drawing(folder / line["image"], line["superordinate"], line["family"], tuple(line["attributes"]), boxes)


class Lessons:
    """Dialogues in the exact wording of the benchmark's questions."""

    def __init__(self, drawings: Sequence[Drawing], species: Sequence[Species]) -> None:
        self.species = species
        self.options = superordinate_list(one.superordinate for one in species)
        count = len(drawings[0].attributes)
        self.values = [sorted({drawing.attributes[place] for drawing in drawings}) for place in range(count)]

    def about(self, drawing: Drawing, rng: np.random.Generator) -> list[Dialogue]:
        """The dialogues about one image: its attributes, and its labels or a species in words."""
        parent = str(rng.choice([prompts.NOTHING, drawing.superordinate, drawing.family], p=[0.2, 0.3, 0.5]))
        # The mixture's wording occurs as well. A model that meets it only in the mixture, where the answer ends after
        # the attributes, also stops after them in chains of thought.
        asked = prompts.seek(parent) if rng.random() < 0.5 else str(rng.choice(ATTRIBUTES)).format(parent=parent)
        sought = Dialogue(((asked, "; ".join(drawing.attributes), True),), image=True)
        kin = [one for one in self.species if one.family == drawing.family]
        lot = rng.random()
        if lot < 0.5:
            return [sought, self._above(drawing, rng)]
        if lot < 0.75 or not kin:
            return [sought, self.in_words(self.species[int(rng.integers(len(self.species)))], rng)]
        return [sought, self.sought(kin[int(rng.integers(len(kin)))], rng)]

    def _above(self, drawing: Drawing, rng: np.random.Generator) -> Dialogue:
        """The superordinate or the family, in one of the prompting styles."""
        coarse = rng.random() < 0.85
        granularity: Granularity = "coarse" if coarse else "superordinate"
        parent = drawing.superordinate if coarse else None
        options = [] if coarse else self.options
        name = f"Answer: {drawing.family if coarse else drawing.superordinate}"
        listed = "; ".join(drawing.attributes)
        if rng.random() < 0.25:
            decide = prompts.decide(granularity, parent, options)
            return Dialogue(((prompts.seek(parent), listed, False), (decide, name, True)), image=True)
        style = _draw_style(rng)
        question = prompts.question(granularity, style, "image", parent, options)
        return Dialogue(((question, name if not PROMPTINGS[style].reasons else f"{listed}. {name}", True),), image=True)

    def in_words(self, one: Species, rng: np.random.Generator) -> Dialogue:
        """The name of a species whose attributes the question lists, without an image."""
        style = _draw_style(rng)
        attributes = self.spoilt(one, rng)
        question = prompts.question("fine", style, "text", one.family, (), one.superordinate, attributes)
        name = f"Answer: {one.name}"
        return Dialogue(
            ((question, name if not PROMPTINGS[style].reasons else f"{'; '.join(attributes)}. {name}", True),),
            image=False,
        )

    def sought(self, one: Species, rng: np.random.Generator) -> Dialogue:
        """ATTRSEEK's second turn about any image: the name follows from the attributes in the first turn."""
        listed = "; ".join(self.spoilt(one, rng))
        decide = prompts.decide("fine", one.family)
        return Dialogue(((prompts.seek(one.family), listed, False), (decide, f"Answer: {one.name}", True)), image=True)

    def spoilt(self, one: Species, rng: np.random.Generator) -> list[str]:
        """The attributes of a species, some of them wrong, but still nearest to this species in its family."""
        kin = [other for other in self.species if other.family == one.family and other.name != one.name]
        for wrong in range(int(rng.choice(len(SPOILT), p=SPOILT)), 0, -1):
            listed = list(one.attributes)
            for place in rng.permutation(len(listed))[:wrong].tolist():
                listed[place] = str(rng.choice(self.values[place]))
            if all(_shared(listed, other.attributes) < _shared(listed, one.attributes) for other in kin):
                return listed
        return list(one.attributes)

    def texts(self) -> Iterator[str]:
        """Texts for the tokenizer besides the mixture: every question and every value."""
        for one in self.species:
            for style in one_turn_styles():
                yield prompts.question("fine", style, "text", one.family, (), one.superordinate, one.attributes)
                yield prompts.question("coarse", style, "image", one.superordinate)
                yield prompts.question("superordinate", style, "image", None, self.options)
            yield prompts.seek(one.family)
            yield prompts.decide("fine", one.family)
            yield f"Answer: {one.name}"
        yield from ("; ".join(values) for values in self.values)


def one_turn_styles() -> list[str]:
    """The prompting styles of the lessons in one turn."""
    return [name for name, style in PROMPTINGS.items() if style.toy_share]


def _draw_style(rng: np.random.Generator) -> str:
    styles = one_turn_styles()
    return styles[int(rng.choice(len(styles), p=[PROMPTINGS[name].toy_share for name in styles]))]


def _shared(listed: Sequence[str], attributes: Sequence[str]) -> int:
    return sum(a == b for a, b in zip(listed, attributes, strict=True))
