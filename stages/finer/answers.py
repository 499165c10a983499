"""The table of answers, `data/finer/answers/<lvlm>/<dataset>.parquet`: one row for each question to an LVLM."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa

from stages.common.artifacts import Metadata
from stages.common.errors import UserError
from stages.common.tables import open_table
from stages.finer.artifacts import ANSWERS, AnswersParameters

KEY = ["idx", "granularity", "prompting", "input"]
"""Columns that identify a question of an LVLM and data set."""


def read_answers(path: Path, lvlm: str, dataset: str) -> tuple[pa.Table, Metadata[AnswersParameters]]:
    """The table of answers of `lvlm` on `dataset`, checked; each question is in it once.

    Raises:
        UserError: missing, not whole, of another LVLM or data set, of other columns, or with a question twice.
    """
    opened = open_table(path, ANSWERS, earlier=True)  # answers cost money
    table, meta = opened.read(), opened.meta
    made_by = meta.parameters.lvlm.lvlm, meta.dataset
    if made_by != (lvlm, dataset):
        raise UserError(f"{path} holds answers of {made_by[0]} on {made_by[1]}; delete it and run `dvc repro`")
    twice = pl.DataFrame(table.select(KEY)).group_by(KEY).len().filter(pl.col("len") > 1).sort(KEY)
    if len(twice):
        idx, *form, times = twice.row(0)
        raise UserError(f"{path} has question {idx} ({', '.join(form)}) {times} times; delete it and ask again")
    return table, meta
