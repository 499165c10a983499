"""Every way in which an artifact is corrupted. `tests/test_faults.py` tries the same list.

A table is corrupted in one of two modes. `stale` changes the content and leaves the metadata as it was, as a careless
tool or a rotten disk does. `resealed` writes the changed table with the project's own writer, as a wrong program would;
it is tried only where the structure of the artifacts can show that something is wrong.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.faults.base import FOREIGN, KINDS
from stages.common.columns import embedding_column, embedding_rows
from stages.common.tables import read_meta, write_table

Rng = np.random.Generator
Change = Callable[[pa.Table, Rng], pa.Table]
STALE, RESEALED, FILE = "stale", "resealed", "file"
ALL = ("every reader",)


@dataclass(frozen=True)
class Corruption:
    """One way to corrupt some kinds of artifact."""

    name: str
    kinds: tuple[str, ...]
    """Keys of `base.KINDS`."""
    change: Change | None = None
    """Of a table."""
    spoil: Callable[[str, Path, Rng], None] | None = None
    """Of a file: the kind and the path."""
    shown: tuple[str, ...] = ()
    """The stages to which structure shows the change of a table, however it was written. Where a file is spoiled: the
    only stages to which it is shown; empty for all."""

    def modes(self, kind: str, stage: str) -> list[str]:
        """The modes in which this is tried on a stage."""
        if kind not in self.kinds:
            return []
        if self.change is None:
            return [FILE] if not self.shown or stage in self.shown else []
        return [STALE, RESEALED] if self.shown == ALL or stage in self.shown else [STALE]

    def apply(self, kind: str, path: Path, mode: str, rng: Rng) -> None:
        """Corrupt the file."""
        if self.spoil:
            self.spoil(kind, path, rng)
            return
        assert self.change is not None
        rewrite(kind, path, mode, self.change, rng)


def rewrite(kind: str, path: Path, mode: str, change: Change, rng: Rng) -> None:
    """Change the table in a file."""
    declared = KINDS[kind].declared
    assert declared is not None
    table = pq.read_table(path, memory_map=False, use_threads=False)
    changed = change(table.combine_chunks(), rng)
    if mode == RESEALED:
        write_table(path, changed.replace_schema_metadata(), read_meta(path, declared))
    else:
        pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)


# Changes of columns


def replace(table: pa.Table, name: str, values: Any) -> pa.Table:
    place = table.schema.get_field_index(name)
    if not isinstance(values, pa.Array | pa.ChunkedArray):
        values = pa.array(values, table.schema.field(name).type)
    return table.set_column(place, name, values)


def with_value(table: pa.Table, rng: Rng, name: str, value: Any) -> pa.Table:
    """One value of a column, which may be the embeddings, changed."""
    row = int(rng.integers(len(table)))
    if name == "embedding":
        rows = embedding_rows(table[name]).copy()
        rows[row, rng.integers(rows.shape[1])] = value
        return replace(table, name, embedding_column(rows))
    values = table[name].to_pylist()
    values[row] = value
    return replace(table, name, values)


def scaled(table: pa.Table, rng: Rng, name: str, factor: float) -> pa.Table:
    """All numbers of a row, or of a column of scalars, times a factor."""
    if name == "embedding":
        rows = embedding_rows(table[name]).copy()
        rows[int(rng.integers(len(rows)))] *= factor
        return replace(table, name, embedding_column(rows))
    return replace(table, name, table[name].to_numpy() * np.float32(factor))


def permuted(values: np.ndarray, rng: Rng) -> np.ndarray:
    """A permutation of row numbers that moves something."""
    order = rng.permutation(values)
    return np.roll(order, 1) if (order == values).all() else order


def shuffled(table: pa.Table, rng: Rng, names: Sequence[str], within: str = "") -> pa.Table:
    """Columns shuffled together: over all rows, or among the rows of equal values of the column `within`."""
    order = np.arange(len(table))
    if within:
        groups = np.array(table[within].to_pylist())
        for group in sorted(set(groups.tolist())):
            rows = np.flatnonzero(groups == group)
            order[rows] = permuted(rows, rng)
    else:
        order = permuted(order, rng)
    for name in names:
        table = replace(table, name, table[name].combine_chunks().take(pa.array(order)))
    return table


def filled(table: pa.Table, rng: Rng, name: str, value: Any) -> pa.Table:
    return replace(table, name, [value] * len(table))


def renamed_values(table: pa.Table, rng: Rng, name: str) -> pa.Table:
    return replace(table, name, [f"{value}-x" for value in table[name].to_pylist()])


def lists_reversed(table: pa.Table, rng: Rng) -> pa.Table:
    """The best classes of each image, the last first."""
    return replace(table, "classes", [row[::-1] for row in table["classes"].to_pylist()])


def foreign_ids(table: pa.Table, rng: Rng) -> pa.Table:
    return replace(table, "image_id", [f"elsewhere/{value}" for value in table["image_id"].to_pylist()])


def narrower(table: pa.Table, rng: Rng) -> pa.Table:
    """Embeddings of another width than the metadata says."""
    rows = embedding_rows(table["embedding"])[:, :-4]
    return replace(table, "embedding", embedding_column(rows))


def other_embeddings_for_images(table: pa.Table, rng: Rng) -> pa.Table:
    """All views of an image take the embeddings and similarities of another image with as many views."""
    rows = len(table)
    order = np.roll(np.arange(rows), rows // 2)
    for name in ("embedding", "similarity"):
        table = replace(table, name, table[name].combine_chunks().take(pa.array(order)))
    return table


def beyond(table: pa.Table, rng: Rng) -> pa.Table:
    """The last view of the shard is of a candidate that has no box."""
    candidates = table["candidate"].to_numpy().copy()
    candidates[-1] = 10_000
    return replace(table, "candidate", candidates)


# Changes of rows


def without_one(table: pa.Table, rng: Rng) -> pa.Table:
    row = int(rng.integers(len(table)))
    return pa.concat_tables([table.slice(0, row), table.slice(row + 1)]).combine_chunks()


def without_half(table: pa.Table, rng: Rng) -> pa.Table:
    return table.slice(0, len(table) // 2)


def without_group(table: pa.Table, rng: Rng, name: str) -> pa.Table:
    """Without all rows of one value of a column."""
    values = table[name].to_pylist()
    gone = values[int(rng.integers(len(values)))]
    return table.filter(pa.array([value != gone for value in values]))


def without_last(table: pa.Table, rng: Rng, name: str) -> pa.Table:
    """Without the rows of the greatest value of a column."""
    values = table[name].to_pylist()
    return table.filter(pa.array([value != max(values) for value in values]))


def without_rows(table: pa.Table, rng: Rng) -> pa.Table:
    return table.slice(0, 0)


def doubled(table: pa.Table, rng: Rng) -> pa.Table:
    return pa.concat_tables([table, table]).combine_chunks()


def rows_shuffled(table: pa.Table, rng: Rng) -> pa.Table:
    return table.take(pa.array(permuted(np.arange(len(table)), rng)))


def rows_reversed(table: pa.Table, rng: Rng) -> pa.Table:
    return table.take(pa.array(np.arange(len(table))[::-1].copy()))


# Changes of the schema


def without_column(table: pa.Table, rng: Rng, name: str) -> pa.Table:
    return table.drop_columns([name])


def as_text(table: pa.Table, rng: Rng, name: str) -> pa.Table:
    return replace(table, name, pa.array([str(value) for value in table[name].to_pylist()]))


def columns_reordered(table: pa.Table, rng: Rng) -> pa.Table:
    return table.select(table.column_names[::-1])


def extra_column(table: pa.Table, rng: Rng) -> pa.Table:
    return table.append_column("extra", pa.array([0] * len(table)))


# Files


def cut(kind: str, path: Path, rng: Rng) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(rng.integers(1, len(content)))])


def without_tail(kind: str, path: Path, rng: Rng) -> None:
    """The last 16 bytes are missing."""
    path.write_bytes(path.read_bytes()[:-16])


def zeroed(kind: str, path: Path, rng: Rng) -> None:
    """A run of bytes in the middle is zero, as a lost block is."""
    content = bytearray(path.read_bytes())
    start = len(content) // 3
    content[start : start + 64] = bytes(64)
    path.write_bytes(content)


def holding(kind: str, path: Path, rng: Rng, content: bytes) -> None:
    path.write_bytes(content)


def as_folder(kind: str, path: Path, rng: Rng) -> None:
    path.unlink()
    path.mkdir()


def of_other_kind(kind: str, path: Path, rng: Rng) -> None:
    """A whole artifact of another kind."""
    other = "boxes" if kind == "images" else "images"
    if path.suffix == ".json":
        other = "FINER's metrics" if kind != "FINER's metrics" else "metrics"
    shutil.copy(KINDS[other].path, path)


def of_other_dataset(kind: str, path: Path, rng: Rng) -> None:
    shutil.copy(KINDS[kind].other_dataset, path)


def of_other_model(kind: str, path: Path, rng: Rng) -> None:
    shutil.copy(KINDS[kind].other_model, path)


def of_other_run(kind: str, path: Path, rng: Rng, run: str) -> None:
    shutil.copy(FOREIGN / run / path.name, path)


def values_of_other_run(table: pa.Table, rng: Rng, run: str) -> pa.Table:
    return pq.read_table(FOREIGN / run / "predictions.parquet", memory_map=False, use_threads=False)


def figure_changed(kind: str, path: Path, rng: Rng, figure: str) -> None:
    """A figure of one method becomes another that could be true."""
    metrics = json.loads(path.read_text())
    methods = [name for name, own in metrics.items() if isinstance(own, dict) and own.get(figure) is not None]
    method = methods[int(rng.integers(len(methods)))]
    metrics[method][figure] += -1 if metrics[method][figure] > 1 else 1
    path.write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")


def finer_figure_changed(kind: str, path: Path, rng: Rng) -> None:
    metrics = json.loads(path.read_text())
    cell = metrics["vlm"]["toy"]["fine/image/plain"]
    cell["em"] = 100 - cell["em"]
    path.write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")


def method_missing(kind: str, path: Path, rng: Rng) -> None:
    metrics = json.loads(path.read_text())
    del metrics[sorted(metrics)[int(rng.integers(len(metrics)))]]
    path.write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")


def method_renamed(kind: str, path: Path, rng: Rng) -> None:
    metrics = json.loads(path.read_text())
    first = sorted(metrics)[0]
    path.write_text(json.dumps({("x" if key == first else key): own for key, own in metrics.items()}, indent=2) + "\n")


def flip_bit(path: Path, bit: int) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
