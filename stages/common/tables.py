"""Parquet tables whose schema carries, under the key `bifta`, a JSON object that says what made them.

Digests of the columns, and one over the rest, stand beside it. A reader checks all of that, refuses what is damaged and
what does not belong together. Files are written under a temporary name and renamed, so a file that exists is whole, and
the same content gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from stages.common.artifacts import FORMAT, Artifact, EncoderMeta, Metadata, Parameters
from stages.common.digests import ALL, COLUMNS, ColumnDigests, sign
from stages.common.errors import UserError
from stages.common.files import replacing
from stages.common.parquet_pages import check_pages
from stages.common.paths import made_by

METADATA_KEY, DIGESTS_KEY = b"bifta", b"bifta_digests"


def remake(path: Path) -> str:
    """What to do about an artifact that is damaged or not the right one."""
    return f"delete it and run `{made_by(path)}`"


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


def with_meta(schema: pa.Schema, meta: Metadata[Any]) -> pa.Schema:
    said = {key: value for key, value in meta.model_dump(mode="json").items() if value is not None}
    text = json.dumps(said, sort_keys=True, ensure_ascii=False)
    return schema.with_metadata({METADATA_KEY: text.encode()})


def write_table(path: Path, table: pa.Table, meta: Metadata[Any], **digests: str) -> None:
    """Write `table` with its metadata and digests, whole or not at all.

    Args:
        digests: of other files that belong to this one, by name.
    """
    with writing(path, table.schema, meta) as writer:
        writer.write_table(table)
        writer.digests.update(digests)


class Writer:
    """Writes a table in pieces, and the digests of its columns at the end."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._writer, self._schema, self._columns = writer, schema, ColumnDigests()
        self.digests: dict[str, Any] = {}
        """Digests of other files that belong to this one, by name."""

    def write_table(self, table: pa.Table) -> None:
        """Write the next rows. Their schema differs from the file's at most in its metadata."""
        self._columns.add(table)
        self._writer.write_table(table.cast(self._schema))

    def close(self) -> None:
        self._columns.add(self._schema.empty_table())
        self.digests[COLUMNS] = self._columns.digests()
        self.digests[ALL] = sign(self._schema, self._schema.metadata[METADATA_KEY], self.digests)
        self._writer.add_key_value_metadata({DIGESTS_KEY: json.dumps(self.digests, sort_keys=True)})


@contextmanager
def writing(path: Path, schema: pa.Schema, meta: Metadata[Any]) -> Iterator[Writer]:
    """A writer for a table that is written in pieces; the file appears at the end, whole."""
    tagged = with_meta(schema, meta)
    # No dictionary for embeddings: float16 has so few values that Arrow would use one, which makes the file larger and
    # four times as slow to read.
    repeating = [_leaf(field) for field in schema if not pa.types.is_fixed_size_list(field.type)]
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, tagged, compression="zstd", use_dictionary=repeating, store_schema=True) as file,
    ):
        writer = Writer(file, tagged)
        yield writer
        writer.close()


def _leaf(field: pa.Field) -> str:
    """What Parquet calls the column."""
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """A JSON file's text."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def write_page(path: Path, text: str) -> None:
    """Write a text that a browser shows: a page in Markdown, or the data of a plot.

    `dvc plots show` copies data into a script of its page as it is, where "</script>" in a class name would end that
    script and start another. So each "<" is written as "‹", which looks alike and means nothing to a browser.
    """
    write_text(path, text.replace("<", "‹"))


def write_plot(path: Path, rows: Any) -> None:
    """Write the data of a plot as JSON, with "<" as `write_page` writes it."""
    write_page(path, json_text(rows))


@dataclass(frozen=True)
class Opened(Generic[Parameters]):
    """A table whose metadata is checked, and whose rows are not read yet."""

    path: Path
    artifact: Artifact[Parameters]
    file: pq.ParquetFile
    meta: Metadata[Parameters]
    digests: dict[str, Any]
    """Those beside the metadata; empty in a file of an earlier version."""

    @property
    def rows(self) -> int:
        """How many the footer promises."""
        return int(self.file.metadata.num_rows)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The table, or some of its columns.

        Raises:
            UserError: the rows are not those that were written, or break a rule of the artifact.
        """
        renamed = self.artifact.renamed if self.meta.format != FORMAT else {}
        names = [renamed.get(name, name) for name in self.file.schema_arrow.names]
        wanted = names if columns is None else list(columns)
        with _decoding(self.path):
            table = self.file.read([self.file.schema_arrow.names[names.index(name)] for name in wanted])
            seen = ColumnDigests()
            seen.add(table)
        self._compare(seen)
        table = table.rename_columns(wanted)
        self._check(table)
        return table

    def batches(self, rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The table, or some of its columns, in pieces of `rows` rows. Only after the last piece are they all verified.

        Raises:
            UserError: as `read`.
        """
        seen = ColumnDigests()
        with _decoding(self.path):
            pieces = self.file.iter_batches(rows, columns=None if columns is None else list(columns))
        while True:
            with _decoding(self.path):
                piece = next(pieces, None)
                if piece is None:
                    break
                table = pa.table(piece)
                seen.add(table)
            self._check(table)
            yield table
        # Where the footer promises row groups without rows there was no piece, and so no column to compare.
        schema = self.file.schema_arrow
        seen.add(schema.empty_table().select(schema.names if columns is None else list(columns)))
        self._compare(seen)

    def _compare(self, seen: ColumnDigests) -> None:
        promised = self.digests.get(COLUMNS)
        if promised is None:  # an earlier version's
            return
        for name, digest_ in seen.digests().items():
            if promised.get(name) != digest_:
                what = f"its column '{name}' is not what was written"
                raise UserError(f"{self.path} is damaged: {what}; {remake(self.path)}")

    def _check(self, table: pa.Table) -> None:
        problem = self.artifact.check(table, self.meta) if self.artifact.check else ""
        if problem:
            raise UserError(f"{self.path}: {problem}; {remake(self.path)}")


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Around reading, which fails in many ways where a file is damaged.

    Raises:
        UserError: the file cannot be decoded.
    """
    try:
        yield
    except FileNotFoundError:
        how = f"make it with `{made_by(path)}`, or fetch it with `dvc pull {path}`"
        raise UserError(f"{path} is missing; {how}") from None
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, TypeError, KeyError) as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        raise UserError(f"{path} is not a whole Parquet file ({reason}); {remake(path)}") from None


def open_table(
    path: Path, artifact: Artifact[Parameters], dataset: str | None = None, *, earlier: bool = False
) -> Opened[Parameters]:
    """Open the table at `path` and check that it is an `artifact`.

    Args:
        dataset: key of the data set that it must be of; None: of any.
        earlier: accept files of earlier versions too: of format 1, which is converted to the present one, and without
            digests.

    Raises:
        UserError: the file is missing, is not whole Parquet, or is not such an artifact.
    """
    file = open_parquet(path)
    with _decoding(path):
        schema, beside = file.schema_arrow, file.metadata.metadata or {}
    raw = _raw_meta(path, artifact, schema)
    signed = _signed(path, raw, schema, beside)
    if not earlier and (not signed or raw.get("format") != FORMAT):
        raise UserError(
            f"{path} was written by an earlier version (format {raw.get('format')}"
            f"{'' if signed else ', no digests'}); run `{made_by(path)}`, which writes it again (texts and views "
            "without encoding anything)"
        )
    meta = _typed_meta(path, artifact, schema, raw)
    if dataset is not None and meta.dataset != dataset:
        raise UserError(f"{path} is of the data set '{meta.dataset}', not of '{dataset}'; {remake(path)}")
    return Opened(path, artifact, file, meta, signed)


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file for reading, memory mapped.

    Raises:
        UserError: the file is missing, is not whole Parquet, or unpacks to gigabytes.
    """
    with _decoding(path):
        file = pq.ParquetFile(path, memory_map=True)
        check_pages(path)
        return file


def _raw_meta(path: Path, artifact: Artifact[Any], schema: pa.Schema) -> dict[str, Any]:
    """The metadata as JSON, of the right kind of artifact."""
    key = METADATA_KEY.decode()
    if METADATA_KEY not in (schema.metadata or {}):
        raise UserError(f"{path} was not written by this pipeline (no '{key}' metadata); {remake(path)}")
    try:
        raw = json.loads(schema.metadata[METADATA_KEY])
    except ValueError:
        raw = None
    if not isinstance(raw, dict) or not raw:
        raise UserError(f"{path} was not written by this pipeline ('{key}' metadata of another kind); {remake(path)}")
    if raw.get("artifact") != artifact.name:
        raise UserError(f"{path} holds {raw.get('artifact')}, but {artifact.name} belong there; {remake(path)}")
    if raw.get("format") not in range(1, FORMAT + 1):
        raise UserError(f"{path} has format version {raw.get('format')}, this version reads {FORMAT}; {remake(path)}")
    return raw


def _signed(path: Path, raw: dict[str, Any], schema: pa.Schema, beside: dict[bytes, bytes]) -> dict[str, Any]:
    """The digests beside the metadata, which they must fit; empty in a file of a version that wrote none."""
    if not raw.get("signed") and DIGESTS_KEY not in beside:
        return {}
    try:
        found: dict[str, Any] = json.loads(beside[DIGESTS_KEY])
        right = found[ALL] == sign(schema, schema.metadata[METADATA_KEY], found)
    except (ValueError, KeyError, TypeError):
        right = False
    if not right:
        raise UserError(f"{path} is damaged, or another program has changed it: its digests do not fit; {remake(path)}")
    return found


def _typed_meta(
    path: Path, artifact: Artifact[Parameters], schema: pa.Schema, raw: dict[str, Any]
) -> Metadata[Parameters]:
    if raw["format"] != FORMAT:
        raw = artifact.upgrade(raw) if artifact.upgrade else raw
        schema = pa.schema([column.with_name(artifact.renamed.get(column.name, column.name)) for column in schema])
    try:
        meta = Metadata[artifact.parameters].model_validate(raw)  # type: ignore[name-defined]
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        key = METADATA_KEY.decode()
        raise UserError(f"{path}: its '{key}' metadata has no valid '{where}'; {remake(path)}") from None
    problem = artifact.mismatch(schema, meta)
    if problem:
        raise UserError(f"{path} is not a table of {artifact.name}: {problem}; {remake(path)}")
    return meta


def read_meta(path: Path, artifact: Artifact[Parameters], dataset: str | None = None) -> Metadata[Parameters]:
    """The metadata of the table at `path`.

    Raises:
        UserError: as `open_table`.
    """
    return open_table(path, artifact, dataset).meta


def read_table(
    path: Path,
    artifact: Artifact[Parameters],
    columns: Sequence[str] | None = None,
    dataset: str | None = None,
) -> tuple[pa.Table, Metadata[Parameters]]:
    """Read a table, or some of its columns, and its metadata, all checked.

    Raises:
        UserError: as `open_table` and `Opened.read`.
    """
    opened = open_table(path, artifact, dataset)
    return opened.read(columns), opened.meta


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
