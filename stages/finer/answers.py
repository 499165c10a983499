"""The table of answers, `data/finer/answers/<lvlm>/<dataset>.parquet`: one row a question put to an LVLM."""

from __future__ import annotations

import pyarrow as pa

ANSWERS = pa.schema(
    {
        "idx": pa.int64(),  # of the unified file
        "image_id": pa.string(),
        "label": pa.int32(),  # of classes.parquet
        "superordinate": pa.string(),  # the gold labels, as in the unified file
        "coarse": pa.list_(pa.string()),
        "fine": pa.list_(pa.string()),
        "granularity": pa.string(),  # superordinate | coarse | fine
        "prompting": pa.string(),  # plain | cot | few-shot-cot | attrseek
        "input": pa.string(),  # image | text | image+attributes
        "told": pa.string(),  # the label above that the question told, or null
        "question": pa.string(),  # the last turn's text
        "attributes": pa.string(),  # ATTRSEEK's first answer, or null
        "answer": pa.string(),  # without thoughts, boxes and ends of turns, or null
        "finish_reason": pa.string(),  # "stop", "length", ... as the server says, or null
        "missing": pa.string(),  # why there is no answer, or null
    }
)
"""Metadata: artifact "answers"; `model` is {"lvlm": key, "name": what the endpoint calls it, "weights": hash or null};
`parameters` are those of `finer.ask`."""
