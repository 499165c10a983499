"""What each answer is worth: rows of answers -> rows of `data/finer/scores.parquet`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
from tqdm import tqdm

from stages.common.errors import UserError, warn
from stages.finer import matching
from stages.finer.options import shown_as

SCORES = pa.schema(
    {
        "lvlm": pa.string(),
        "dataset": pa.string(),
        "idx": pa.int64(),
        "label": pa.int32(),
        "granularity": pa.string(),
        "prompting": pa.string(),
        "input": pa.string(),
        "extracted": pa.string(),  # the answer that was scored, or null
        "em": pa.float32(),  # 0 to 1, null where the answer is missing
        "f1": pa.float32(),
        "strict_em": pa.float32(),  # null also where every gold is empty
        "strict_f1": pa.float32(),
        "missing": pa.string(),  # why there is no answer, or null
        "empty": pa.bool_(),  # an answer with no answer in it: scored as it is, and counted
        "unmarked": pa.bool_(),  # no "Answer:" in it, so that the whole of it was scored
        "cut": pa.bool_(),  # the answer reached max_tokens
    }
)
NO_REASON = "no reason given"


def score_answers(answers: pa.Table, lvlm: str, dataset: str) -> pa.Table:
    """The scores of one LVLM on one data set, a row a question in the order of the answers.

    Raises:
        UserError: a question whose golds are none at all.
    """
    columns: dict[str, list] = {name: [] for name in SCORES.names if name not in answers.column_names}
    columns["missing"] = []
    refused: set[str] = set()
    with tqdm(total=len(answers), desc=f"score {lvlm} {dataset}", unit="answer", disable=None) as bar:
        for row in (row for batch in answers.to_batches(1 << 14) for row in batch.to_pylist()):
            golds = matching.accepted_golds(row["granularity"], row["superordinate"], row["coarse"], row["fine"])
            if not golds:
                raise UserError(f"{dataset}: image idx {row['idx']} has no {row['granularity']} label to be scored by")
            if matching.empty_golds(golds):
                refused.add(f"{row['idx']} ({row['granularity']})")
            # A closed list may write the superordinate otherwise, "Birds" for "bird".
            above = row["superordinate"] if row["granularity"] == "superordinate" else None
            listed = [shown_as(above)] if above else []
            scored = score_row(row["answer"], golds, listed)
            for name, value in scored.items():
                columns[name].append(value)
            columns["missing"].append((row["missing"] or NO_REASON) if row["answer"] is None else None)
            columns["cut"].append(row["finish_reason"] == "length")
            bar.update()
    if refused:
        some = ", ".join(sorted(refused)[:3])
        warn(
            f"{dataset}: {len(refused)} questions have a gold label without a word in it (idx {some}); the published "
            "exact match counts every answer to them as right, the strict one leaves such a label out"
        )
    columns["lvlm"], columns["dataset"] = [lvlm] * len(answers), [dataset] * len(answers)
    made = {name: columns.get(name, answers[name] if name in answers.column_names else None) for name in SCORES.names}
    return pa.table(made, schema=SCORES)


def score_row(
    answer: str | None, golds: Sequence[str], listed: Sequence[str] = ()
) -> dict[str, str | float | bool | None]:
    """What one answer is worth: nulls where it is missing, strict nulls where every gold is empty.

    Args:
        listed: what the strict rules accept beside the golds: an option of the question as it was written.
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
    """How many questions were answered, and what became of the rest, in one line."""
    reasons = Counter(reason for reason in scores["missing"].to_pylist() if reason is not None)
    missing = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    empty, unmarked, cut = (sum(scores[name].to_pylist()) for name in ("empty", "unmarked", "cut"))
    return (
        f"score {lvlm} {dataset}: {len(scores)} questions, {reasons.total()} without an answer"
        f"{f' ({missing})' if missing else ''}, {empty} answers with no answer in them, "
        f'{unmarked} without "{matching.PREFIX}" and so scored whole, {cut} cut at max_tokens'
    )
