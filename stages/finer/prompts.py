"""The wording of all questions: those of the benchmark (FINER, arXiv 2402.16315, sections 3, 4) and of the mixture (5).

An answer counts from the first "Answer:" on, so every question asks for that word.
"""

from __future__ import annotations

from collections.abc import Sequence

from stages.finer.promptings import PROMPTINGS, Granularity, Modality

NOTHING = "thing"
"""Stands for the parent label in questions at the superordinate level, which has none."""

LEVEL = "family or type"
"""What the coarse question asks for, unless a closed list says otherwise."""

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
higher label of any data set, so that an example names neither the right answer nor a wrong one."""


def question(
    granularity: Granularity,
    prompting: str,
    modality: Modality,
    parent: str | None,
    options: Sequence[str] = (),
    superordinate: str | None = None,
    required: Sequence[str] = (),
    level: str = LEVEL,
) -> str:
    """The text of a question in a single turn.

    Args:
        prompting: a style without a turn of its own for the attributes.
        parent: the parent label, which the question names. None at the superordinate level; at the coarse level the
            superordinate label; at the fine level a coarse label, or the superordinate one if there is none.
        options: the closed list of the superordinate level, or of a coarse level that has one.
        superordinate: label of the class, for questions with attributes, which also name the labels above.
        required: the concept's required attributes, for the same questions.
        level: what a coarse label is, such as "manufacturer" for aircraft.
    """
    style = PROMPTINGS[prompting]
    about = _asked(granularity, modality, parent, options, level)
    if modality != "image":
        about = f"{_knowledge(superordinate, parent, required)} {about}"
    if style.examples:
        about = f"{_examples(granularity)}\n\n{about}"
    return f"{about} {STEPS if style.reasons else ALONE}"


def seek(parent: str | None) -> str:
    """ATTRSEEK's first turn, which asks for the visible attributes."""
    return f'Which visible attributes does the {parent or NOTHING} in the image have? List them, separated by "; ".'


def decide(granularity: Granularity, parent: str | None, options: Sequence[str] = (), level: str = LEVEL) -> str:
    """ATTRSEEK's second turn, which asks for the class after the attributes."""
    return f"Given these attributes: {_asked(granularity, 'image', parent, options, level)} {ALONE}"


def _asked(granularity: Granularity, modality: Modality, parent: str | None, options: Sequence[str], level: str) -> str:
    where = "described" if modality == "text" else "in the image"
    if granularity == "superordinate":
        asked = f"What is {where}?"
    else:
        asked = f"What is the {level if granularity == 'coarse' else 'exact name'} of the {parent} {where}?"
    return f"{asked} Choose one of: {', '.join(options)}." if options and granularity != "fine" else asked


def _knowledge(superordinate: str | None, parent: str | None, required: Sequence[str]) -> str:
    above = ", ".join(dict.fromkeys(label for label in (superordinate, parent) if label))
    return f"Taxonomy: {above}. Attributes: {'; '.join(required)}."


def _examples(granularity: Granularity) -> str:
    return "\n".join(f"Example: I see {seen}. Answer: {name}" for seen, name in EXAMPLES[granularity])


# The mixture's questions. Each slot has many, so that the model does not learn one sentence. The first of each is the
# benchmark's own question, and all end with the benchmark's words for what the answer should look like.

LISTED = 'List them, separated by "; ".'

COARSE = (
    "What is the family or type of the {parent} in the image?",
    "Which family or type does this {parent} belong to?",
    "What kind of {parent} is this?",
    "What type of {parent} can be seen here?",
    "Which sort of {parent} does the picture show?",
    "Name the family or type of the {parent} in the picture.",
    "To which group does the {parent} in the image belong?",
    "Say what kind of {parent} you see.",
    "How would you classify this {parent}, broadly?",
    "Looking at the picture, which type of {parent} is it?",
    "In broad terms, what kind of {parent} is shown?",
    "The image shows a {parent}. Which family or type is it?",
    "Here is a {parent}. What type is it?",
    "What group is this {parent} a member of?",
    "Identify the broad type of the {parent} shown.",
    "Which kind of {parent} is in the photo?",
    "Of what type is the {parent} in front of you?",
)
"""`{parent}`: the superordinate."""

ATTRIBUTES = (
    "Which visible attributes does the {parent} in the image have?",
    "What can be seen of the {parent} in the image?",
    "What does this {parent} look like?",
    "Describe the visible attributes of the {parent}.",
    "Which features of the {parent} does the picture show?",
    "What are the visible characteristics of this {parent}?",
    "Go through the parts of the {parent}: what does each look like?",
    "What would you note about the appearance of this {parent}?",
    "Which marks and features can you make out on the {parent}?",
    "Look closely at the {parent}. Which attributes do you see?",
    "By which visible features could one know this {parent}?",
    "What stands out in the appearance of the {parent}?",
    "Name what is visible of the {parent} in the picture.",
    "Which details of the {parent} can be seen?",
    "How does the {parent} in the photo look, part by part?",
    "What physical features does the {parent} shown have?",
)
"""`{parent}`: the label that the turn before asked for."""

FINE = (
    "Given these attributes: What is the exact name of the {parent} in the image?",
    "From these attributes, which {parent} is it?",
    "With these attributes in mind, what is this {parent} called?",
    "Which {parent} has the attributes that you listed?",
    "Considering what you see, what is the name of this {parent}?",
    "So which {parent} does the image show?",
    "Putting these features together, what is the {parent} called exactly?",
    "What do these attributes tell you about which {parent} this is?",
    "Based on the attributes above, name the {parent}.",
    "Which {parent} fits this description?",
    "Given what is visible, identify the {parent} exactly.",
    "Judging by these features, which {parent} is in the picture?",
    "Use these attributes to name the {parent} in the image.",
    "Now that its features are known, which {parent} is it precisely?",
    "What is the most specific name of the {parent} with these attributes?",
    "Which {parent} do these features point to?",
)
"""`{parent}`: as in ATTRIBUTES."""

DIRECT = (
    "What is the exact name of the {parent} in the image?",
    "Which {parent} is this?",
    "What is this {parent} called?",
    "Name the {parent} in the picture exactly.",
    "Which {parent} does the image show?",
    "Identify the {parent} in the photo.",
    "Can you tell which {parent} this is?",
    "What is the most specific name of this {parent}?",
    "The picture shows a {parent}. Which one is it?",
    "Here is a {parent}. What is its exact name?",
    "Say precisely which {parent} you see.",
    "By what name is the {parent} shown known?",
    "Exactly which {parent} is in front of you?",
    "Give the precise name of the {parent}.",
    "Looking at the picture, which {parent} is it?",
    "What do people call the {parent} shown here?",
)
"""The baseline's single turn; `{parent}`: the label above the fine one."""

PHRASINGS: dict[str, tuple[str, ...]] = {
    "coarse": tuple(f"{text} {ALONE}" for text in COARSE),
    "attributes": tuple(f"{text} {LISTED}" for text in ATTRIBUTES),
    "fine": tuple(f"{text} {ALONE}" for text in FINE),
    "direct": tuple(f"{text} {ALONE}" for text in DIRECT),
}
"""Slot -> questions with `{parent}`."""
