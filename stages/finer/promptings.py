"""What can be asked: granularities, modalities and prompting styles (FINER, arXiv 2402.16315, sections 3 and 4).

Each is declared here and nowhere else. The allowed values of params.yaml, the questions, the metrics, the tables, the
plots and the toy model's lessons all follow from these declarations. Their wording is in `prompts.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Granularity = Literal["superordinate", "coarse", "fine"]
GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)

Modality = Literal["image", "text", "image+attributes"]
"""What a question shows: the image, the required attributes and the labels above in words, or both."""

ASKED_AT: dict[Modality, tuple[Granularity, ...]] = {
    "image": GRANULARITIES,
    "text": ("fine",),
    "image+attributes": ("fine",),
}
"""The granularities that are asked in each modality. Attributes come with the labels above the fine one, so that only
the fine label is left to ask for."""
MODALITIES = tuple(ASKED_AT)

PLAIN, ATTRSEEK = "plain", "attrseek"
"""The styles that the figure `attrseek_gain` compares."""


@dataclass(frozen=True)
class Prompting:
    """A prompting style; its name is its key in `PROMPTINGS`."""

    reasons: bool = False
    """Whether the question asks for steps of reasoning before the name."""
    examples: bool = False
    """Whether two worked examples come before the question."""
    seeks: bool = False
    """Whether a first turn asks for the visible attributes, and a second one for the class."""
    modalities: tuple[Modality, ...] = MODALITIES
    toy_share: float = 0.0
    """Share of the toy model's lessons in one turn that are asked this way; the shares add up to 1."""


PROMPTINGS: dict[str, Prompting] = {
    PLAIN: Prompting(toy_share=0.5),
    "cot": Prompting(reasons=True, toy_share=0.3),
    # The examples make long questions.
    "few-shot-cot": Prompting(reasons=True, examples=True, toy_share=0.2),
    ATTRSEEK: Prompting(seeks=True, modalities=("image",)),
}
"""The styles in the order of tables and plots."""


def known_prompting(name: str) -> str:
    """The name itself.

    Raises:
        ValueError: no style of this name.
    """
    if name not in PROMPTINGS:
        raise ValueError(f"must be one of {', '.join(PROMPTINGS)}, not {name!r}")
    return name


def combinations(
    granularities: Sequence[Granularity], promptings: Sequence[str], modalities: Sequence[Modality]
) -> list[tuple[Granularity, str, Modality]]:
    """What is asked of an image, in order, if these values are chosen in params.yaml."""
    return [
        (granularity, prompting, modality)
        for granularity in granularities
        for modality in modalities
        for prompting in promptings
        if granularity in ASKED_AT[modality] and modality in PROMPTINGS[prompting].modalities
    ]
