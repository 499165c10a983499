"""score: `data/finer/answers/<lvlm>/<dataset>.parquet` -> `data/finer/scores.parquet` and `metrics.json`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from tqdm import tqdm

from stages.common.encoders import Encoder, load_encoder
from stages.common.errors import UserError, warn
from stages.common.names import spelling
from stages.common.tables import Meta, read_table
from stages.finer import matching, paths
from stages.finer.answers import ANSWERS
from stages.finer.attributes import Concept, read_by_class
from stages.finer.classes import ClassLabels, read_classes
from stages.finer.figures import GENERATION, HELD_OUT, SEEN, Figures, Parts
from stages.finer.options import shown_as
from stages.finer.params import FinerParams
from stages.finer.score.generation import Encode, asked_for_attributes, collect, generation_figures
from stages.finer.score.metrics import Draws, metrics_of

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
KEY = ["idx", "granularity", "prompting", "input"]
"""What a question is known by, within an LVLM and a data set."""
NO_REASON = "no reason given"
EMBED_BATCH = 64
MIXTURE_CLASSES = paths.MIXTURE / "classes.json"
IN_FILE = {SEEN: "seen", HELD_OUT: "held_out"}
"""What `classes.json` calls the parts."""
MixtureClasses = dict[str, dict[str, list[str]]]


def _has_answers(lvlm: str, dataset: str) -> bool:
    path = paths.answers(lvlm, dataset)
    if not path.exists():
        warn(f"{path} is missing: {lvlm} is left out of {dataset}; ask it, or fetch it with `dvc pull {path}`")
    return path.exists()


@dataclass(frozen=True)
class Known:
    """What is known of a data set whichever LVLM is asked; read when it is first wanted."""

    dataset: str
    mixture: MixtureClasses | None
    """Data set -> its classes by part, as `IN_FILE` calls them; None where there is no mixture."""

    @cached_property
    def classes(self) -> list[ClassLabels]:
        return read_classes(self.dataset)

    @cached_property
    def concepts(self) -> list[Concept]:
        """By label."""
        return read_by_class(paths.attributes_by_class(self.dataset), [known.name for known in self.classes])

    @cached_property
    def parts(self) -> Parts | None:
        """Labels by part; None where the mixture says nothing of the data set. Unknown names warn."""
        if self.mixture is None or self.dataset not in self.mixture:
            return None
        named = self.mixture[self.dataset]
        labels: dict[str, set[int]] = {}
        for label, known in enumerate(self.classes):  # several may have one name
            labels.setdefault(spelling(known.name), set()).add(label)
        unknown = [name for part in named.values() for name in part if spelling(name) not in labels]
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            warn(f"{MIXTURE_CLASSES}: {self.dataset} has no class '{unknown[0]}'{more}")
        return {
            part: {label for name in named[key] for label in labels.get(spelling(name), ())}
            for part, key in IN_FILE.items()
        }


def figures_of(
    answers: pa.Table, scores: pa.Table, known: Known, parts: Parts | None, draws: Draws, encode: Encode
) -> Figures:
    """All figures of one LVLM and data set.

    Args:
        parts: as `metrics_of` has them.

    Raises:
        UserError: attribute lists are to be compared and no attribute file, or a package, is there.
    """
    figures = metrics_of(pl.DataFrame(scores), draws, parts)
    lists = pl.DataFrame(answers.select(["label", "granularity", "prompting", "input", "attributes"]))
    if len(asked_for_attributes(lists)):
        file = paths.attributes(known.dataset)
        figures[GENERATION] = generation_figures(collect(lists, known.concepts, str(file)), encode, draws)
    return figures


def read_answers(path: Path, lvlm: str, dataset: str) -> tuple[pa.Table, Meta]:
    """A table of answers, checked to be that of `lvlm` on `dataset`, each question once.

    Raises:
        UserError: missing, not whole, of another LVLM or data set, of other columns, or with a question twice.
    """
    table, meta = read_table(path, "answers")
    made_by = (meta.get("model") or {}).get("lvlm", lvlm), meta.get("dataset")
    if made_by != (lvlm, dataset):
        raise UserError(f"{path} holds answers of {made_by[0]} on {made_by[1]}; delete it and run `dvc repro`")
    try:
        table = table.select(ANSWERS.names).cast(ANSWERS)
    except (KeyError, pa.ArrowInvalid, ValueError) as error:
        raise UserError(f"{path} is no table of answers ({str(error).splitlines()[0]}); delete it, ask again") from None
    twice = pl.DataFrame(table.select(KEY)).group_by(KEY).len().filter(pl.col("len") > 1).sort(KEY)
    if len(twice):
        idx, *form, times = twice.row(0)
        raise UserError(f"{path} has question {idx} ({', '.join(form)}) {times} times; delete it and ask again")
    return table, meta


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


def read_mixture_classes(path: Path) -> MixtureClasses | None:
    """`classes.json`, or None where there is no mixture.

    Raises:
        UserError: the file is something else.
    """
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        named = {str(dataset): {key: own[key] for key in IN_FILE.values()} for dataset, own in found.items()}
        if not all(isinstance(part, list) for own in named.values() for part in own.values()):
            raise TypeError
        return {
            dataset: {key: [str(name) for name in part] for key, part in own.items()} for dataset, own in named.items()
        }
    except (ValueError, AttributeError, TypeError, KeyError):
        raise UserError(
            f"{path} is not {{data set: {{seen: [class name, ...], held_out: [...]}}}}; run `python -m "
            "stages.finer.mixture.build`"
        ) from None


def _encoder(params: FinerParams) -> Encode:
    """Embeds with the text tower of `finer.encoder`, loaded when it is first wanted."""

    @cache
    def load() -> Encoder:
        return load_encoder(params.finer.encoder, params)

    def encode(texts: Sequence[str]) -> np.ndarray:
        return load().encode_texts(texts, EMBED_BATCH, "attributes").numpy()

    return encode
