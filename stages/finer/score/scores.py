"""Scores of single answers: rows of answers -> rows of `data/finer/scores.parquet`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
from tqdm import tqdm

from stages.common.errors import UserError, warn
from stages.finer import matching
from stages.finer.artifacts import SCORES
from stages.finer.options import listed_form

NO_REASON = "no reason given"


def score_answers(answers: pa.Table, lvlm: str, dataset: str) -> pa.Table:
    """The scores of one LVLM on one data set: a row for each question, in the order of the answers.

    Raises:
        UserError: a question without golds.
    """
    columns: dict[str, list] = {name: [] for name in SCORES.columns.names if name not in answers.column_names}
    columns["missing"] = []
    refused: set[str] = set()
    with tqdm(total=len(answers), desc=f"score {lvlm} {dataset}", unit="answer", disable=None) as bar:
        for row in (row for batch in answers.to_batches(1 << 14) for row in batch.to_pylist()):
            golds = matching.accepted_golds(row["granularity"], row["superordinate"], row["coarse"], row["fine"])
            if not golds:
                raise UserError(f"{dataset}: image idx {row['idx']} has no {row['granularity']} label to be scored by")
            if matching.empty_golds(golds):
                refused.add(f"{row['idx']} ({row['granularity']})")
            # A closed list may write the superordinate label differently: "Birds" for "bird".
            above = row["superordinate"] if row["granularity"] == "superordinate" else None
            listed = [listed_form(above)] if above else []
            scored = score_row(row["answer"], golds, listed)
            for name, value in scored.items():
                columns[name].append(value)
            columns["missing"].append((row["missing"] or NO_REASON) if row["answer"] is None else None)
            columns["cut"].append(row["finish_reason"] == "length")
            bar.update()
    if refused:
        some = ", ".join(sorted(refused)[:3])
        warn(
            f"{dataset}: {len(refused)} questions have a gold label without words (idx {some}); the published "
            "exact match counts every answer to them as right, the strict one leaves such a label out"
        )
    columns["lvlm"], columns["dataset"] = [lvlm] * len(answers), [dataset] * len(answers)
    names = SCORES.columns.names
    made = {name: columns.get(name, answers[name] if name in answers.column_names else None) for name in names}
    return pa.table(made, schema=SCORES.columns)


def score_row(
    answer: str | None, golds: Sequence[str], listed: Sequence[str] = ()
) -> dict[str, str | float | bool | None]:
    """The scores of one answer: null if it is missing; strict scores are null if every gold is empty.

    Args:
        listed: right options as the question wrote them, which the strict rules also accept.
    """
    if answer is None:
        return dict.fromkeys(("extracted", "em", "f1", "strict_em", "strict_f1")) | {"empty": False, "unmarked": False}
    said = matching.extract_answer(answer)
    strict_golds = [*golds, *listed]
    strict = any(map(matching.strict_words, strict_golds))
    return {
        "extracted": said,
        "em": matching.exact_match(said, golds),
        "f1": matching.f1(said, golds),
        "strict_em": matching.strict_exact_match(said, strict_golds) if strict else None,
        "strict_f1": matching.strict_f1(said, strict_golds) if strict else None,
        "empty": matching.is_empty(said),
        "unmarked": matching.PREFIX not in answer,
    }


def summary(lvlm: str, dataset: str, scores: pa.Table) -> str:
    """One line: how many questions were answered, and why the others were not."""
    reasons = Counter(reason for reason in scores["missing"].to_pylist() if reason is not None)
    missing = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    empty, unmarked, cut = (sum(scores[name].to_pylist()) for name in ("empty", "unmarked", "cut"))
    return (
        f"score {lvlm} {dataset}: {len(scores)} questions, {reasons.total()} without an answer"
        f"{f' ({missing})' if missing else ''}, {empty} answers without words, "
        f'{unmarked} without "{matching.PREFIX}" (the whole text is scored), {cut} cut at max_tokens'
    )
