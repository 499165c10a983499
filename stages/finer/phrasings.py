"""How the mixture's questions are worded; each slot in many ways, so that what is learnt is not one sentence.

The first of each slot is the benchmark's own question (`prompts.py`), and what an answer should look like is asked for
in its words, whichever way the question is put.
"""

from __future__ import annotations

from stages.finer.prompts import ALONE

LISTED = 'List them, separated by "; ".'

COARSE = (
    "What is the family or type of the {told} in the image?",
    "Which family or type does this {told} belong to?",
    "What kind of {told} is this?",
    "What type of {told} can be seen here?",
    "Which sort of {told} does the picture show?",
    "Name the family or type of the {told} in the picture.",
    "To which group does the {told} in the image belong?",
    "Say what kind of {told} you see.",
    "How would you classify this {told}, broadly?",
    "Looking at the picture, which type of {told} is it?",
    "In broad terms, what kind of {told} is shown?",
    "The image shows a {told}. Which family or type is it?",
    "Here is a {told}. What type is it?",
    "What group is this {told} a member of?",
    "Identify the broad type of the {told} shown.",
    "Which kind of {told} is in the photo?",
    "Of what type is the {told} in front of you?",
)
"""`{told}`: the superordinate."""

ATTRIBUTES = (
    "Which visible attributes does the {told} in the image have?",
    "What can be seen of the {told} in the image?",
    "What does this {told} look like?",
    "Describe the visible attributes of the {told}.",
    "Which features of the {told} does the picture show?",
    "What are the visible characteristics of this {told}?",
    "Go through the parts of the {told}: what does each look like?",
    "What would you note about the appearance of this {told}?",
    "Which marks and features can you make out on the {told}?",
    "Look closely at the {told}. Which attributes do you see?",
    "By which visible features could one know this {told}?",
    "What stands out in the appearance of the {told}?",
    "Name what is visible of the {told} in the picture.",
    "Which details of the {told} can be seen?",
    "How does the {told} in the photo look, part by part?",
    "What physical features does the {told} shown have?",
)
"""`{told}`: the label that the turn before found."""

FINE = (
    "Given these attributes: What is the exact name of the {told} in the image?",
    "From these attributes, which {told} is it?",
    "With these attributes in mind, what is this {told} called?",
    "Which {told} has the attributes that you listed?",
    "Considering what you see, what is the name of this {told}?",
    "So which {told} does the image show?",
    "Putting these features together, what is the {told} called exactly?",
    "What do these attributes tell you about which {told} this is?",
    "Based on the attributes above, name the {told}.",
    "Which {told} fits this description?",
    "Given what is visible, identify the {told} exactly.",
    "Judging by these features, which {told} is in the picture?",
    "Use these attributes to name the {told} in the image.",
    "Now that its features are known, which {told} is it precisely?",
    "What is the most specific name of the {told} with these attributes?",
    "Which {told} do these features point to?",
)
"""`{told}`: as of ATTRIBUTES."""

DIRECT = (
    "What is the exact name of the {told} in the image?",
    "Which {told} is this?",
    "What is this {told} called?",
    "Name the {told} in the picture exactly.",
    "Which {told} does the image show?",
    "Identify the {told} in the photo.",
    "Can you tell which {told} this is?",
    "What is the most specific name of this {told}?",
    "The picture shows a {told}. Which one is it?",
    "Here is a {told}. What is its exact name?",
    "Say precisely which {told} you see.",
    "By what name is the {told} shown known?",
    "Exactly which {told} is in front of you?",
    "Give the precise name of the {told}.",
    "Looking at the picture, which {told} is it?",
    "What do people call the {told} shown here?",
)
"""Of the baseline, in a single turn; `{told}`: the label above the fine one."""

QUESTIONS: dict[str, tuple[str, ...]] = {
    "coarse": tuple(f"{text} {ALONE}" for text in COARSE),
    "attributes": tuple(f"{text} {LISTED}" for text in ATTRIBUTES),
    "fine": tuple(f"{text} {ALONE}" for text in FINE),
    "direct": tuple(f"{text} {ALONE}" for text in DIRECT),
}
"""Slot -> questions with `{told}`."""
