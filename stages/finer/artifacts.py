"""The Parquet artifacts of the benchmark: their columns and what made them. `data/README.md` describes both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stages.common.artifacts import Artifact, Metadata, Record
from stages.finer.promptings import GRANULARITIES, MODALITIES, PROMPTINGS


class LvlmMeta(Record):
    """The LVLM that gave an answer."""

    lvlm: str
    """A key of `finer.endpoints` or `finer.served`."""
    name: str
    """What the endpoint calls it."""
    weights: str | None = None
    """Hash of the folder of a checkpoint that is served here; None for an endpoint."""


class AnswersParameters(Record):
    """What was asked: `seed` and the keys of `finer.ask` that decide about answers."""

    lvlm: LvlmMeta
    seed: int
    granularities: list[str]
    prompting: list[str]
    inputs: list[str]
    images_per_class: int | None
    temperature: float
    max_tokens: int


class ScoresParameters(Record):
    lvlms: list[str]
    datasets: list[str]
    models: dict[str, dict[str, LvlmMeta]]
    """LVLM -> data set -> what gave the answers."""


class MixtureParameters(Record):
    """The kind of conversations, `seed` and the section `finer.mixture`."""

    kind: str
    seed: int
    datasets: list[str]
    leave_out: str | None
    held_out_classes: float
    per_dataset: int
    append: str | None


def _lvlm_among_parameters(raw: dict[str, Any]) -> dict[str, Any]:
    """Metadata of answers of format 1, where the LVLM stood in the place of the encoder."""
    rest = {key: value for key, value in raw.items() if key != "model"}
    return {**rest, "parameters": {**raw["parameters"], "lvlm": raw.get("model")}}


def check_answers(table: pa.Table, meta: Metadata[Any]) -> str:
    """Questions that can be asked, about images whose class is known."""
    for name in ("idx", "image_id", "label", *ASKABLE):
        if name in table.column_names and table[name].null_count:
            return f"{table[name].null_count} rows have no '{name}'"
    if "label" in table.column_names and pc.any(pc.less(table["label"], 0)).as_py():
        return "it has a negative label"
    for name, known in ASKABLE.items():
        strange = [value for value in pc.unique(table[name]).to_pylist() if value not in known]
        if strange:
            return f"'{strange[0]}' is no {name}"
    return ""


ASKABLE: dict[str, Sequence[str]] = {
    "granularity": GRANULARITIES,
    "prompting": list(PROMPTINGS),
    "input": MODALITIES,
}
"""Columns that say what was asked, and their values."""

_QUESTION = {
    "granularity": pa.string(),  # superordinate | coarse | fine
    "prompting": pa.string(),  # a style of `promptings.PROMPTINGS`
    "input": pa.string(),  # the modality: image | text | image+attributes
}

ANSWERS = Artifact(
    "answers",
    pa.schema(
        {
            "idx": pa.int64(),  # of the unified file
            "image_id": pa.string(),
            "label": pa.int32(),  # of classes.parquet
            "superordinate": pa.string(),  # the gold labels, as in the unified file
            "coarse": pa.list_(pa.string()),
            "fine": pa.list_(pa.string()),
            **_QUESTION,
            "parent_label": pa.string(),  # the label above the one asked for, as the question names it, or null
            "question": pa.string(),  # the last turn's text
            "attributes": pa.string(),  # ATTRSEEK's first answer, or null
            "answer": pa.string(),  # without thoughts, boxes and ends of turns; or null
            "finish_reason": pa.string(),  # "stop", "length", ... as the server says, or null
            "missing": pa.string(),  # why there is no answer, or null
        }
    ),
    AnswersParameters,
    check=check_answers,
    renamed={"told": "parent_label"},
    upgrade=_lvlm_among_parameters,
)

SCORES = Artifact(
    "scores",
    pa.schema(
        {
            "lvlm": pa.string(),
            "dataset": pa.string(),
            "idx": pa.int64(),
            "label": pa.int32(),
            **_QUESTION,
            "extracted": pa.string(),  # the answer that was scored, or null
            "em": pa.float32(),  # 0 to 1; null if the answer is missing
            "f1": pa.float32(),
            "strict_em": pa.float32(),  # null also if every gold is empty
            "strict_f1": pa.float32(),
            "missing": pa.string(),  # why there is no answer, or null
            "empty": pa.bool_(),  # an answer without words; it is scored
            "unmarked": pa.bool_(),  # an answer without the word "Answer:"; the whole text is scored
            "cut": pa.bool_(),  # the answer reached max_tokens
        }
    ),
    ScoresParameters,
)

_PART = pa.struct({"type": pa.string(), "text": pa.string()})
# {"type": "image", "text": null} or {"type": "text", "text": ...}

MIXTURE = Artifact(
    "mixture",
    pa.schema(
        {
            "id": pa.string(),
            "images": pa.list_(pa.string()),  # paths, in the order of the image parts
            "messages": pa.list_(pa.struct({"role": pa.string(), "content": pa.list_(_PART)})),
        }
    ),
    MixtureParameters,
)
