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
from pydantic import ValidationError

from stages.common.artifacts import FORMAT, Artifact, EncoderMeta, Metadata, Parameters
from stages.common.errors import UserError

METADATA_KEY = b"bifta"
REMEDY = "delete it and run `dvc repro`"


def make_meta(
    artifact: Artifact[Parameters], dataset: str, parameters: Parameters, model: EncoderMeta | None = None
) -> Metadata[Parameters]:
    """The metadata of a new table.

    Args:
        dataset: key of the data set in params.yaml.
        parameters: the values that made the table.
        model: `Encoder.meta`, for tables made with a model.
    """
    typed = Metadata[artifact.parameters]  # type: ignore[name-defined]
    return typed(artifact=artifact.name, dataset=dataset, parameters=parameters, model=model)


def digest(value: Any) -> str:
    """64-bit hex digest of a JSON value; equal values give equal digests on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def with_meta(schema: pa.Schema, meta: Metadata[Any]) -> pa.Schema:
    said = {key: value for key, value in meta.model_dump(mode="json").items() if value is not None}
    text = json.dumps(said, sort_keys=True, ensure_ascii=False)
    return schema.with_metadata({METADATA_KEY: text.encode()})


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to `path` on success and removed on failure.

    Its name carries the process id, so that two processes never write the same file. Leftovers of killed writers are
    removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files from which `path` should have been made, of processes that are no more.

    Args:
        path: its name may be a pattern, such as "part-*.parquet".
    """
    for left in path.parent.glob(f".{path.name}.*tmp"):
        process = left.name.removesuffix(".tmp").rpartition(".")[2]
        if not (process.isdecimal() and _is_alive(int(process))):
            left.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    """Whether there is such a process on this machine. On others, a run of the same stage is kept away by its lock."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def write_table(path: Path, table: pa.Table, meta: Metadata[Any]) -> None:
    """Write `table` with its metadata, whole or not at all."""
    with writing(path, table.schema, meta) as writer:
        writer.write_table(table)


@contextmanager
def writing(path: Path, schema: pa.Schema, meta: Metadata[Any]) -> Iterator[pq.ParquetWriter]:
    """A Parquet writer for a table that is written in pieces; the file appears at the end, whole."""
    tagged = with_meta(schema, meta)
    # No dictionary for embeddings: float16 has so few values that Arrow would use one, which is four times as slow to
    # read
    # and larger.
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
    """Casts each piece to the tagged schema, which differs from the piece's only in its metadata."""

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


def read_meta(path: Path, artifact: Artifact[Parameters], formats: Sequence[int] = (FORMAT,)) -> Metadata[Parameters]:
    """The metadata of the table at `path`, checked to be that of an `artifact`.

    Args:
        formats: accepted versions; metadata of an earlier format is converted to the present one.

    Raises:
        UserError: the file is missing, is not whole Parquet, or is not such an artifact of one of the formats.
    """
    return _checked_meta(path, artifact, open_parquet(path), formats)


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


def _checked_meta(
    path: Path, artifact: Artifact[Parameters], file: pq.ParquetFile, formats: Sequence[int]
) -> Metadata[Parameters]:
    schema: pa.Schema = file.schema_arrow
    key = METADATA_KEY.decode()
    if METADATA_KEY not in (schema.metadata or {}):
        raise UserError(f"{path} was not written by this pipeline (no '{key}' metadata); {REMEDY}")
    try:
        raw = json.loads(schema.metadata[METADATA_KEY])
    except ValueError:
        raw = None
    if not isinstance(raw, dict) or not raw:
        raise UserError(f"{path} was not written by this pipeline ('{key}' metadata of another kind); {REMEDY}")
    if raw.get("artifact") != artifact.name:
        raise UserError(f"{path} holds {raw.get('artifact')}, but {artifact.name} belong there; {REMEDY}")
    if raw.get("format") not in formats:
        raise UserError(
            f"{path} has format version {raw.get('format')}, this version reads {FORMAT}; run `dvc repro`, which "
            "writes it again (texts and views without encoding anything)"
        )
    if raw["format"] != FORMAT:
        raw = artifact.upgrade(raw) if artifact.upgrade else raw
        schema = pa.schema([column.with_name(artifact.renamed.get(column.name, column.name)) for column in schema])
    try:
        meta = Metadata[artifact.parameters].model_validate(raw)  # type: ignore[name-defined]
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise UserError(f"{path}: its '{key}' metadata has no valid '{where}'; {REMEDY}") from None
    problem = artifact.mismatch(schema, meta)
    if problem:
        raise UserError(f"{path} is not a table of {artifact.name}: {problem}; {REMEDY}")
    return meta


def read_table(
    path: Path,
    artifact: Artifact[Parameters],
    columns: Sequence[str] | None = None,
    formats: Sequence[int] = (FORMAT,),
) -> tuple[pa.Table, Metadata[Parameters]]:
    """Read a table and its checked metadata.

    Raises:
        UserError: as `read_meta`.
    """
    file = open_parquet(path)
    meta = _checked_meta(path, artifact, file, formats)
    if meta.format != FORMAT and artifact.renamed:
        table = file.read().rename_columns([artifact.renamed.get(name, name) for name in file.schema_arrow.names])
        return table.select(columns or table.column_names), meta
    return file.read(columns=list(columns) if columns is not None else None), meta


def require_same_model(mine: tuple[Path, EncoderMeta], theirs: tuple[Path, EncoderMeta], remedy: str) -> None:
    """Refuse two artifacts of different models; see `EncoderMeta.same_model`.

    Raises:
        UserError: names both files and what differs.
    """
    (path_a, a), (path_b, b) = mine, theirs
    if not a.same_model(b):
        require_same("model", (path_a, a.identity()), (path_b, b.identity()), remedy)


def require_same(key: str, mine: tuple[Path, Any], theirs: tuple[Path, Any], remedy: str) -> None:
    """Refuse two artifacts that do not belong together.

    Raises:
        UserError: the values of `key` differ; names both files and both values.
    """
    (path_a, a), (path_b, b) = mine, theirs
    if a != b:
        raise UserError(f"{path_a} and {path_b} do not belong together: {_difference(key, a, b)}; {remedy}")


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
        name: the column that identifies a row in messages.

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
