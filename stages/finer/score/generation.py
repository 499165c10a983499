"""Attribute generation (FINER, arXiv 2402.16315): the attributes that an LVLM lists, against the required ones.

ATTRSEEK's first answers to the image alone are compared with the concept's required attributes, joined by "; ". Likely
attributes may be absent from the picture, so they are not in the reference. An answer without words is compared like
any other, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from stages.common.errors import warn
from stages.common.optional import import_optional
from stages.finer.attributes import Concept
from stages.finer.figures import Figures
from stages.finer.matching import extract_answer, is_empty
from stages.finer.promptings import ATTRSEEK
from stages.finer.score.metrics import Draws, percent

PURPOSE = "scoring of generated attributes"
Encode = Callable[[Sequence[str]], np.ndarray]
"""N texts -> [N, D] float32 of unit norm."""


@dataclass(frozen=True)
class Lists:
    """N generated lists and their references, and counts of those that could not be compared."""

    generated: list[str]
    references: list[str]
    labels: list[int]
    asked: int
    missing: int
    """Questions without a generated list."""
    unknown: int
    """Lists about a concept without required attributes."""


def asked_for_attributes(answers: pl.DataFrame) -> pl.DataFrame:
    """The rows whose `attributes` are evaluated: ATTRSEEK at the fine level, shown the image alone."""
    return answers.filter(
        (pl.col("granularity") == "fine") & (pl.col("prompting") == ATTRSEEK) & (pl.col("input") == "image")
    )


def collect(answers: pl.DataFrame, concepts: Sequence[Concept], where: str) -> Lists:
    """Each generated list with its concept's required attributes. A warning names concepts without any.

    Args:
        answers: rows of the table of answers, of one LVLM and data set.
        concepts: by label.
        where: the attribute file, for the warning.
    """
    rows = asked_for_attributes(answers)
    answered = rows.filter(pl.col("attributes").is_not_null())
    lacking = sorted({concepts[label].name for label in answered["label"] if not concepts[label].binomial.required})
    if lacking:
        shown = ", ".join(lacking[:5]) + (", ..." if len(lacking) > 5 else "")
        warn(f"{where} has no required attributes of {len(lacking)} concepts, left out of generation: {shown}")
    kept = [
        (extract_answer(text), "; ".join(required), label)
        for text, label in zip(answered["attributes"], answered["label"], strict=True)
        if (required := concepts[label].binomial.required)
    ]
    return Lists(
        generated=[text for text, _, _ in kept],
        references=[reference for _, reference, _ in kept],
        labels=[label for _, _, label in kept],
        asked=len(rows),
        missing=len(rows) - len(answered),
        unknown=len(answered) - len(kept),
    )


def generation_figures(lists: Lists, encode: Encode, draws: Draws) -> Figures:
    """ROUGE-L with interval, BLEU of the corpus with signature, and the mean cosine of embeddings with interval.

    ROUGE-L is rouge-score's F-measure without stemming, BLEU is sacrebleu's with defaults; both in percent.

    Raises:
        UserError: rouge-score or sacrebleu is not installed.
    """
    counts = {
        "asked": lists.asked,
        "missing": lists.missing,
        "unknown": lists.unknown,
        "empty": sum(map(is_empty, lists.generated)),
    }
    if not lists.generated:
        return {"rouge_l": None, "bleu": None, "cosine": None, **counts}
    labels = pl.Series(lists.labels)
    rouge = draws.mean(pl.Series(rouge_l(lists.generated, lists.references)), labels)
    cosine = draws.mean(pl.Series(cosines(lists.generated, lists.references, encode)), labels)
    score, signature = bleu(lists.generated, lists.references)
    return {
        "rouge_l": percent(rouge.mean),
        "rouge_l_low": percent(rouge.low),
        "rouge_l_high": percent(rouge.high),
        "bleu": round(score, 2),
        "bleu_signature": signature,
        "cosine": _rounded(cosine.mean),
        "cosine_low": _rounded(cosine.low),
        "cosine_high": _rounded(cosine.high),
        **counts,
    }


def rouge_l(generated: Sequence[str], references: Sequence[str]) -> list[float]:
    """ROUGE-L of each pair, F-measure in 0..1, stemmer off.

    Raises:
        UserError: rouge-score is not installed.
    """
    scorer = import_optional("rouge_score.rouge_scorer", PURPOSE).RougeScorer(["rougeL"], use_stemmer=False)
    return [
        float(scorer.score(reference, text)["rougeL"].fmeasure)
        for text, reference in zip(generated, references, strict=True)
    ]


def bleu(generated: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    """BLEU of the corpus in percent, with one reference for each text, and sacrebleu's signature of its settings.

    Raises:
        UserError: sacrebleu is not installed.
    """
    metric = import_optional("sacrebleu", PURPOSE).BLEU()
    score = metric.corpus_score(list(generated), [list(references)]).score
    return float(score), str(metric.get_signature())


def cosines(generated: Sequence[str], references: Sequence[str], encode: Encode) -> np.ndarray:
    """Cosine of each list's and its reference's embedding: [N] float64. The encoder cuts longer texts."""
    texts = list(dict.fromkeys([*generated, *references]))
    rows = encode(texts).astype(np.float64)
    place = {text: row for row, text in enumerate(texts)}
    mine, other = (rows[[place[text] for text in side]] for side in (generated, references))
    return np.einsum("nd,nd->n", mine, other)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
