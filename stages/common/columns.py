"""Columns of the artifacts as arrays, and arrays as columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

WHOLE = -1
"""The `candidate` of the view that is the whole image; it is the first of an image's rows."""

EDGES = ("left", "top", "right", "bottom")
"""Columns of a box, in pixels; right and bottom are exclusive."""


def embedding_column(rows: np.ndarray) -> pa.FixedSizeListArray:
    """[N, D] float array -> fixed-size list column of the same float type, without a copy."""
    rows = np.ascontiguousarray(rows)
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])


def embedding_rows(column: pa.ChunkedArray) -> np.ndarray:
    """Fixed-size list column -> [N, D] array, without a copy where the column is one chunk."""
    width = column.type.list_size
    chunks = [chunk.flatten().to_numpy(zero_copy_only=True).reshape(-1, width) for chunk in column.chunks]
    if len(chunks) == 1:
        return chunks[0]
    dtype = np.dtype(column.type.value_type.to_pandas_dtype())
    return np.concatenate(chunks) if chunks else np.zeros((0, width), dtype=dtype)


def box_rows(table: pa.Table) -> np.ndarray:
    """The columns of `EDGES` -> [N, 4] int32."""
    return np.stack([table[edge].to_numpy() for edge in EDGES], axis=1)


def kept_under(kept: pa.ChunkedArray, thresholds: Sequence[float]) -> np.ndarray | None:
    """The column `kept` of boxes -> [N, T] bool, whether each candidate survives under each of T IoU thresholds.

    None if a list holds another value than `thresholds`, ascending, or one of them twice.
    """
    chunks = kept.chunks or [pa.array([], kept.type)]
    counts = np.concatenate([pc.list_value_length(chunk).to_numpy() for chunk in chunks])
    values = np.concatenate([chunk.flatten().to_numpy() for chunk in chunks])
    # Thresholds are stored as float32: 0.8 there is not the 0.8 of params.yaml.
    offered = np.array(thresholds, dtype=np.float32)
    column = np.searchsorted(offered, values).clip(max=len(offered) - 1)
    found = np.zeros((len(counts), len(offered)), dtype=bool)
    found[np.repeat(np.arange(len(counts)), counts), column] = True
    if (offered[column] != values).any() or found.sum() != len(values):
        return None
    return found


def list_rows(column: pa.ChunkedArray) -> np.ndarray:
    """A column of lists of equal length K -> [N, K]; no lists: [0, 0]."""
    rows: np.ndarray = column.combine_chunks().flatten().to_numpy()
    return rows.reshape(len(column), -1)
