"""The wording of the questions: three granularities, four ways of prompting (FINER, arXiv 2402.16315, sections 3, 4).

An answer counts from the first "Answer:" on, so every question asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from stages.finer.params import Ask, Granularity, Input, Prompting

NOTHING = "thing"
"""What is told above the superordinate level."""

LEVEL = "family or type"
"""What the coarse question asks for, where no closed list says otherwise."""

ALONE = 'Reply with "Answer:" and the name alone.'
STEPS = 'Let us think step by step, and end with "Answer:" and the name.'

EXAMPLES: dict[Granularity, Sequence[tuple[str, str]]] = {
    "superordinate": (
        ("letters with small feet at the ends of their strokes: something to print with", "typeface"),
        ("six-sided columns with pointed ends, as clear as glass: something that formed in rock", "mineral"),
    ),
    "coarse": (
        ("letters of broken strokes and sharp corners, as very old books have them", "blackletter"),
        ("six-sided columns with pointed ends and a glassy shine", "quartz"),
    ),
    "fine": (
        ("rounded letters with a small eye in the e and an o that leans to the left", "Garamond"),
        ("grey-brown six-sided columns that one can see through", "smoky quartz"),
    ),
}
"""For few-shot chain of thought: what is seen, and the answer that follows from it. No answer is a class name or a
label above one in any data set, so that an example names neither the right answer nor a wrong one."""


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


def question(
    granularity: Granularity,
    prompting: Prompting,
    given: Input,
    told: str | None,
    options: Sequence[str] = (),
    superordinate: str | None = None,
    required: Sequence[str] = (),
    level: str = LEVEL,
) -> str:
    """The text of a question in one turn.

    Args:
        told: the label above: nothing at the superordinate level, then the superordinate, then a coarse label (or,
            where the data set knows none, the superordinate again).
        options: the closed list of the superordinate level, or of a coarse level that has one.
        superordinate: of the class, for questions with attributes, which tell the taxonomy above the fine level.
        required: the concept's required attributes, likewise.
        level: what a coarse label is, "manufacturer" of aircraft.
    """
    about = _asked(granularity, given, told, options, level)
    if given != "image":
        about = f"{_knowledge(superordinate, told, required)} {about}"
    if prompting == "few-shot-cot":
        about = f"{_examples(granularity)}\n\n{about}"
    return f"{about} {ALONE if prompting == 'plain' else STEPS}"


def seek(told: str | None) -> str:
    """ATTRSEEK's first turn: the visible attributes of what the image shows."""
    return f'Which visible attributes does the {told or NOTHING} in the image have? List them, separated by "; ".'


def decide(granularity: Granularity, told: str | None, options: Sequence[str] = (), level: str = LEVEL) -> str:
    """ATTRSEEK's second turn: the class, given what the first turn found."""
    return f"Given these attributes: {_asked(granularity, 'image', told, options, level)} {ALONE}"


def _asked(granularity: Granularity, given: Input, told: str | None, options: Sequence[str], level: str) -> str:
    where = "described" if given == "text" else "in the image"
    if granularity == "superordinate":
        asked = f"What is {where}?"
    else:
        asked = f"What is the {level if granularity == 'coarse' else 'exact name'} of the {told} {where}?"
    return f"{asked} Choose one of: {', '.join(options)}." if options and granularity != "fine" else asked


def _knowledge(superordinate: str | None, told: str | None, required: Sequence[str]) -> str:
    above = ", ".join(dict.fromkeys(label for label in (superordinate, told) if label))
    return f"Taxonomy: {above}. Attributes: {'; '.join(required)}."


def _examples(granularity: Granularity) -> str:
    return "\n".join(f"Example: I see {seen}. Answer: {name}" for seen, name in EXAMPLES[granularity])
