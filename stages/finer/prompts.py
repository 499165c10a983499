"""The wording of the questions: three granularities, four ways of prompting (FINER, arXiv 2402.16315, sections 3, 4).

An answer counts from the first "Answer:" on, so every question asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stages.common.finer_params import Ask, Granularity, Input, Prompting
from stages.common.names import spelling

KINDS = ("aircraft", "bird", "car", "dog", "fish", "flower", "insect", "mammal", "mushroom", "reptile", "tree")
"""Options of the superordinate question beside the kinds that the benchmark's data sets hold."""

NOTHING = "thing"
"""What is told above the superordinate level."""

ALONE = 'Reply with "Answer:" and the name alone.'
STEPS = 'Let us think step by step, and end with "Answer:" and the name.'

EXAMPLES: dict[Granularity, Sequence[tuple[str, str]]] = {
    "superordinate": (
        ("four wheels, a windscreen and two doors: a vehicle for the road", "car"),
        ("petals around a yellow centre, on a green stem: a part of a plant", "flower"),
    ),
    "coarse": (
        ("a flat face, a short coat and a curled tail, as small companion dogs have", "toy dog"),
        ("a long hooked beak over a throat pouch, webbed feet, as large water birds have", "pelican"),
    ),
    "fine": (
        ("a black cap, white cheeks and a grey back, which together only one of them has", "black-capped chickadee"),
        ("orange wings with black veins and white dots along the edge", "monarch butterfly"),
    ),
}
"""For few-shot chain of thought: what is seen, and the answer that follows from it."""


def combinations(ask: Ask) -> list[tuple[Granularity, Prompting, Input]]:
    """What is asked of an image, in order.

    With attributes in the question the taxonomy above the fine level is told, so that only the fine level is left to
    ask for; and ATTRSEEK, which has the model find the attributes, is for images alone.
    """
    return [
        (granularity, prompting, given)
        for granularity in ask.granularities
        for given in ask.inputs
        for prompting in ask.prompting
        if given == "image" or (granularity == "fine" and prompting != "attrseek")
    ]


def kinds(superordinates: Iterable[str]) -> list[str]:
    """The closed list of the superordinate question: those of the data and KINDS, "Birds" and "bird" being one."""
    found: dict[str, str] = {}
    for name in (*dict.fromkeys(superordinates), *KINDS):
        found.setdefault(spelling(name).removesuffix("s"), name)
    return sorted(found.values(), key=str.casefold)


def question(
    granularity: Granularity,
    prompting: Prompting,
    given: Input,
    told: str | None,
    options: Sequence[str] = (),
    superordinate: str | None = None,
    required: Sequence[str] = (),
) -> str:
    """The text of a question in one turn.

    Args:
        told: the label above: nothing at the superordinate level, then the superordinate, then a coarse label (or,
            where the data set knows none, the superordinate again).
        options: of the superordinate level.
        superordinate: of the class, for questions with attributes, which tell the taxonomy above the fine level.
        required: the concept's required attributes, likewise.
    """
    about = _asked(granularity, given, told, options)
    if given != "image":
        about = f"{_knowledge(superordinate, told, required)} {about}"
    if prompting == "few-shot-cot":
        about = f"{_examples(granularity)}\n\n{about}"
    return f"{about} {ALONE if prompting == 'plain' else STEPS}"


def seek(told: str | None) -> str:
    """ATTRSEEK's first turn: the visible attributes of what the image shows."""
    return f'Which visible attributes does the {told or NOTHING} in the image have? List them, separated by "; ".'


def decide(granularity: Granularity, told: str | None, options: Sequence[str] = ()) -> str:
    """ATTRSEEK's second turn: the class, given what the first turn found."""
    return f"Given these attributes: {_asked(granularity, 'image', told, options)} {ALONE}"


def _asked(granularity: Granularity, given: Input, told: str | None, options: Sequence[str]) -> str:
    where = "described" if given == "text" else "in the image"
    if granularity == "superordinate":
        return f"What is {where}? Choose one of: {', '.join(options)}."
    level = "family or type" if granularity == "coarse" else "exact name"
    return f"What is the {level} of the {told} {where}?"


def _knowledge(superordinate: str | None, told: str | None, required: Sequence[str]) -> str:
    above = ", ".join(dict.fromkeys(label for label in (superordinate, told) if label))
    return f"Taxonomy: {above}. Attributes: {'; '.join(required)}."


def _examples(granularity: Granularity) -> str:
    return "\n".join(f"Example: I see {seen}. Answer: {name}" for seen, name in EXAMPLES[granularity])
