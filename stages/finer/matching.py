"""How an answer is scored (FINER, arXiv 2402.16315): the published rules, and our stricter ones beside them.

The published exact match asks whether the normalised gold is a part of the first words of the answer, letter by
letter: "cat" matches "catalog", and an empty gold matches everything. It also removes hyphens without a space, so that
"Black footed Albatross" does not match "Black-footed Albatross". It is kept so that numbers compare. The strict variant
compares whole words and the whole gold, takes a hyphen for a space, and refuses an empty gold.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from stages.common.thoughts import without_marks

PREFIX = "Answer:"
ANSWER_WORDS, GOLD_WORDS = 20, 10
"""Normalised words of an answer in which a gold is looked for, and those of a gold that F1 compares (published)."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_HYPHENS = re.compile("[-_\u2010-\u2015\u2212]")
_APOSTROPHES = re.compile("[\u2018\u2019\u02bc]")


def extract_answer(text: str) -> str:
    """What follows the first "Answer:", or the whole text; without end-of-sequence markers and white space around.

    The text must be without thoughts (`without_thoughts`), because a model may say "Answer:" in them as well. Boxes and
    all end-of-sequence markers are removed; the published code removes only "</s>".
    """
    _, found, after = text.partition(PREFIX)
    return without_marks(after if found else text).strip()


@lru_cache(maxsize=1 << 16)
def normalise(text: str) -> str:
    """SQuAD's normalisation, in its order: lower case, no ASCII punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def strict_words(text: str) -> list[str]:
    """The normalised words of a text for the strict rules: a hyphen separates words, apostrophes of any kind go."""
    return normalise(_HYPHENS.sub(" ", _APOSTROPHES.sub("", text))).split()


def is_empty(answer: str) -> bool:
    """Whether an extracted answer is empty, or has only punctuation and articles."""
    return not normalise(answer)


def exact_match(prediction: str, golds: Sequence[str]) -> float:
    """The published exact match, 1 or 0: the best over golds.

    A gold matches if its normalised text occurs in the first 20 normalised words of the prediction, joined by spaces,
    or if it equals the whole normalised prediction.

    Args:
        prediction: an extracted answer.
        golds: at least one.

    Raises:
        ValueError: no golds.
    """
    _require(golds)
    words = normalise(prediction)
    start = " ".join(words.split()[:ANSWER_WORDS])
    return float(any(normalise(gold) in start or normalise(gold) == words for gold in golds))


def f1(prediction: str, golds: Sequence[str]) -> float:
    """The published F1 of two bags of words, 0 to 1: the best over golds, each cut to its first 10 words.

    Without a common word it is 0, even if both are empty, as in SQuAD 1.1 and the published code.

    Raises:
        ValueError: no golds.
    """
    _require(golds)
    said = normalise(prediction).split()
    return max(_bag_f1(said, normalise(gold).split()[:GOLD_WORDS]) for gold in golds)


def strict_exact_match(prediction: str, golds: Sequence[str]) -> float:
    """1 if a gold's words occur in a row in the first 20 words, or are the whole answer; otherwise 0.

    Raises:
        ValueError: every gold is empty. An empty one beside others is left out (`empty_golds` counts them).
    """
    words = strict_words(prediction)
    start = words[:ANSWER_WORDS]
    return float(any(_within(gold, start) or gold == words for gold in _gold_words(golds)))


def strict_f1(prediction: str, golds: Sequence[str]) -> float:
    """F1 of two bags of words with the whole of each gold, 0 to 1: the best over golds.

    Raises:
        ValueError: as `strict_exact_match`.
    """
    said = strict_words(prediction)
    return max(_bag_f1(said, gold) for gold in _gold_words(golds))


def empty_golds(golds: Sequence[str]) -> int:
    """How many of the golds have no word left when normalised."""
    return sum(not normalise(gold) for gold in golds)


def accepted_golds(
    granularity: str, superordinate: str | None, coarse: Sequence[str], fine: Sequence[str]
) -> list[str]:
    """The golds of a question: the labels of its level and of every finer one. None is no gold; "" is one.

    Raises:
        ValueError: an unknown granularity.
    """
    match granularity:
        case "superordinate":
            return [*([] if superordinate is None else [superordinate]), *coarse, *fine]
        case "coarse":
            return [*coarse, *fine]
        case "fine":
            return list(fine)
    raise ValueError(f"unknown granularity '{granularity}'")


def _require(golds: Sequence[str]) -> None:
    if not golds:
        raise ValueError("no gold to compare with")


def _gold_words(golds: Sequence[str]) -> list[list[str]]:
    """The words of each gold that has any."""
    words = [own for own in map(strict_words, golds) if own]
    if not words:
        raise ValueError("no gold with a word in it to compare with")
    return words


def _within(part: list[str], words: list[str]) -> bool:
    """Whether `part` is a run of `words`."""
    return any(words[i : i + len(part)] == part for i in range(len(words) - len(part) + 1))


def _bag_f1(said: list[str], gold: list[str]) -> float:
    common = (Counter(said) & Counter(gold)).total()
    if not common:
        return 0.0
    precision, recall = common / len(said), common / len(gold)
    return 2 * precision * recall / (precision + recall)
