"""Parquet tables whose schema carries, under the key `bifta`, a JSON object that says what made them.

A reader checks that object and refuses what does not belong together. Files are written under a temporary name and
renamed, so a file that exists is whole, and the same content gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.errors import UserError

METADATA_KEY = b"bifta"
MEND = "delete it and run `dvc repro`"
FORMAT = 1
"""Version of the artifact formats; raised when a reader of the old one would go wrong."""

UNTRAINED = "UNTRAINED"
"""What metadata and metrics say in place of a pretrained tag where the weights are random."""

Meta = dict[str, Any]

PREDICTIONS = pa.schema(
    {
        "image_id": pa.string(),
        "label": pa.int32(),
        "method": pa.string(),
        "run": pa.int32(),
        "predicted": pa.int32(),
        "score": pa.float32(),
        "margin": pa.float32(),
    }
)
"""Columns of `predictions.parquet`: what a method said of an image in a run."""


def make_meta(artifact: str, dataset: str, *, parameters: Meta, model: Meta | None = None) -> Meta:
    """The `bifta` object of a new table.

    Args:
        artifact: "images", "classes", "boxes", "texts", "views" or "predictions".
        dataset: key of the data set in params.yaml.
        parameters: the values that made the table.
        model: what `Encoder.meta` says, for tables made with a model.
    """
    meta: Meta = {"format": FORMAT, "artifact": artifact, "dataset": dataset, "parameters": parameters}
    if model is not None:
        meta["model"] = model
    return meta


def digest(value: Any) -> str:
    """64-bit hex digest of a JSON value; equal values give equal digests on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def with_meta(schema: pa.Schema, meta: Meta) -> pa.Schema:
    text = json.dumps(meta, sort_keys=True, ensure_ascii=False)
    return schema.with_metadata({METADATA_KEY: text.encode()})


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to `path` on success and removed on failure.

    What a killed writer left under the temporary name is overwritten by the next.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_table(path: Path, table: pa.Table, meta: Meta) -> None:
    """Write `table` with its `bifta` object, whole or not at all."""
    with writing(path, table.schema, meta) as writer:
        writer.write_table(table)


@contextmanager
def writing(path: Path, schema: pa.Schema, meta: Meta) -> Iterator[pq.ParquetWriter]:
    """A Parquet writer for a table that is written in pieces; the file appears at the end, whole."""
    tagged = with_meta(schema, meta)
    # Embeddings hardly repeat, yet have so few distinct float16 values that Arrow would look each one up in a
    # dictionary: four times as slow to read, and larger.
    repeating = [_leaf(field) for field in schema if not pa.types.is_fixed_size_list(field.type)]
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, tagged, compression="zstd", use_dictionary=repeating, store_schema=True) as writer,
    ):
        yield _TaggedWriter(writer, tagged)


def _leaf(field: pa.Field) -> str:
    """What Parquet calls the column."""
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name


class _TaggedWriter:
    """Casts each piece to the tagged schema, which differs from the piece's in its metadata alone."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._writer, self._schema = writer, schema

    def write_table(self, table: pa.Table) -> None:
        self._writer.write_table(table.cast(self._schema))


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_meta(path: Path, artifact: str) -> Meta:
    """The `bifta` object of the table at `path`, checked to be that of `artifact`.

    Raises:
        UserError: the file is missing, is not whole Parquet, or is not such an artifact of this format.
    """
    return _checked_meta(path, artifact, open_parquet(path).schema_arrow.metadata or {})


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file for reading, memory mapped.

    Raises:
        UserError: the file is missing or is not whole Parquet.
    """
    try:
        return pq.ParquetFile(path, memory_map=True)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; make it with `dvc repro`, or fetch it with `dvc pull {path}`") from None
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not a whole Parquet file ({reason}); delete it and run `dvc repro`") from None


def _checked_meta(path: Path, artifact: str, schema_metadata: dict[bytes, bytes]) -> Meta:
    if METADATA_KEY not in schema_metadata:
        raise UserError(f"{path} was not written by this pipeline (no '{METADATA_KEY.decode()}' metadata); {MEND}")
    try:
        meta: Meta = json.loads(schema_metadata[METADATA_KEY])
    except ValueError:
        meta = {}
    if not isinstance(meta, dict) or not meta:
        raise UserError(
            f"{path} was not written by this pipeline ('{METADATA_KEY.decode()}' metadata of another kind); {MEND}"
        )
    if meta.get("artifact") != artifact:
        raise UserError(f"{path} holds {meta.get('artifact')}, but {artifact} belong there; {MEND}")
    if meta.get("format") != FORMAT:
        raise UserError(
            f"{path} has format version {meta.get('format')}, this version reads {FORMAT}; run `dvc repro -f`"
        )
    return meta


def read_table(path: Path, artifact: str, columns: Sequence[str] | None = None) -> tuple[pa.Table, Meta]:
    """Read a table and its checked `bifta` object.

    Raises:
        UserError: as `read_meta`.
    """
    file = open_parquet(path)
    meta = _checked_meta(path, artifact, file.schema_arrow.metadata or {})
    return file.read(columns=list(columns) if columns is not None else None), meta


MODEL_IDENTITY = ("name", "pretrained", "weights", "activation", "image_size", "preprocess")


def model_identity(meta: Meta) -> Meta:
    """What must agree between texts and views; the precision of the image tower may differ."""
    return {key: meta["model"][key] for key in MODEL_IDENTITY}


def require_same(key: str, mine: tuple[Path, Any], theirs: tuple[Path, Any], mend: str) -> None:
    """Refuse two artifacts that do not belong together.

    Raises:
        UserError: the values of `key` differ; names both files and both values.
    """
    (path_a, a), (path_b, b) = mine, theirs
    if a != b:
        raise UserError(f"{path_a} and {path_b} do not belong together: {_difference(key, a, b)}; {mend}")


def _difference(key: str, a: Any, b: Any) -> str:
    """Only the parts of two metadata values that differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        parts = [_difference(f"{key}.{k}", a.get(k), b.get(k)) for k in sorted({*a, *b}) if a.get(k) != b.get(k)]
        return ", ".join(parts)
    return f"{key} is {a!r} in the first, {b!r} in the second"


def embedding_column(rows: np.ndarray) -> pa.FixedSizeListArray:
    """[N, D] float array -> fixed-size list column of the same float type, without a copy."""
    rows = np.ascontiguousarray(rows)
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])


def finite_rows(table: pa.Table, path: Path, name: str) -> np.ndarray:
    """The embeddings of a table, checked: [N, D] float, without a copy where the column is one chunk.

    Args:
        path: of the table, for the message.
        name: the column that says what a row is of.

    Raises:
        UserError: an embedding, or a cosine beside it, is not finite.
    """
    rows = embedding_rows(table["embedding"])
    if not _all_finite(rows):
        _refuse("the embedding", np.isfinite(rows).all(axis=1), table, path, name)
    for cosine in {"similarity", "label_similarity"} & set(table.column_names):
        finite = np.isfinite(table[cosine].to_numpy())
        if not finite.all():
            _refuse(f"the {cosine}", finite, table, path, name)
    return rows


def _refuse(what: str, finite: np.ndarray, table: pa.Table, path: Path, name: str) -> None:
    row = int(np.argmin(finite))
    raise UserError(
        f"{path}: {what} of '{table[name][row].as_py()}' is not finite (and {(~finite).sum() - 1} others); "
        "delete the file and run `dvc repro`"
    )


def _all_finite(rows: np.ndarray) -> bool:
    if rows.dtype != np.float16 or not rows.size:
        return bool(np.isfinite(rows).all())
    # NumPy has no fast float16: as integers, infinity and NaN are the largest of either sign. 20 times as fast.
    return bool(rows.view(np.int16).max() < 0x7C00 and rows.view(np.uint16).max() < 0xFC00)


def embedding_rows(column: pa.ChunkedArray) -> np.ndarray:
    """Fixed-size list column -> [N, D] array, without a copy where the column is one chunk."""
    width = column.type.list_size
    chunks = [chunk.flatten().to_numpy(zero_copy_only=True).reshape(-1, width) for chunk in column.chunks]
    if len(chunks) == 1:
        return chunks[0]
    dtype = np.dtype(column.type.value_type.to_pandas_dtype())
    return np.concatenate(chunks) if chunks else np.zeros((0, width), dtype=dtype)
