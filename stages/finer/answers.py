"""The table of answers, `data/finer/answers/<lvlm>/<dataset>.parquet`: one row for each question to an LVLM."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa

from stages.common.errors import UserError
from stages.common.tables import Meta, read_table

ANSWERS = pa.schema(
    {
        "idx": pa.int64(),  # of the unified file
        "image_id": pa.string(),
        "label": pa.int32(),  # of classes.parquet
        "superordinate": pa.string(),  # the gold labels, as in the unified file
        "coarse": pa.list_(pa.string()),
        "fine": pa.list_(pa.string()),
        "granularity": pa.string(),  # superordinate | coarse | fine
        "prompting": pa.string(),  # a style of `promptings.PROMPTINGS`
        "input": pa.string(),  # the modality: image | text | image+attributes
        "parent_label": pa.string(),  # the label above the one asked for, as the question names it, or null
        "question": pa.string(),  # the last turn's text
        "attributes": pa.string(),  # ATTRSEEK's first answer, or null
        "answer": pa.string(),  # without thoughts, boxes and ends of turns; or null
        "finish_reason": pa.string(),  # "stop", "length", ... as the server says, or null
        "missing": pa.string(),  # why there is no answer, or null
    }
)
"""Metadata: artifact "answers"; `model` is {"lvlm": key, "name": what the endpoint calls it, "weights": hash or null};
`parameters` are those of `finer.ask`."""

RENAMED = {"told": "parent_label"}
"""Columns that older tables have under another name. These tables are read, because answers cost money."""

KEY = ["idx", "granularity", "prompting", "input"]
"""Columns that identify a question of an LVLM and data set."""


def read_answers(path: Path, lvlm: str, dataset: str) -> tuple[pa.Table, Meta]:
    """The table of answers of `lvlm` on `dataset`, checked; each question is in it once.

    Raises:
        UserError: missing, not whole, of another LVLM or data set, of other columns, or with a question twice.
    """
    table, meta = read_table(path, "answers")
    made_by = (meta.get("model") or {}).get("lvlm", lvlm), meta.get("dataset")
    if made_by != (lvlm, dataset):
        raise UserError(f"{path} holds answers of {made_by[0]} on {made_by[1]}; delete it and run `dvc repro`")
    table = table.rename_columns([RENAMED.get(name, name) for name in table.column_names])
    try:
        table = table.select(ANSWERS.names).cast(ANSWERS)
    except (KeyError, pa.ArrowInvalid, ValueError) as error:
        raise UserError(f"{path} is no table of answers ({str(error).splitlines()[0]}); delete it, ask again") from None
    twice = pl.DataFrame(table.select(KEY)).group_by(KEY).len().filter(pl.col("len") > 1).sort(KEY)
    if len(twice):
        idx, *form, times = twice.row(0)
        raise UserError(f"{path} has question {idx} ({', '.join(form)}) {times} times; delete it and ask again")
    return table, meta
