"""Digests of the columns of a table, and of objects in JSON files: what a file promises about its content."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

COLUMNS, ALL = "columns", "all"
"""Keys of the digests beside the metadata: those of the columns, and the one over everything but the rows."""

DIGEST = "bifta_digest"
"""Key of the digest within a JSON object."""


class ColumnDigests:
    """CRC-32 of each column, updated piece by piece. It finds damage, which is no attack; it reads 7 GB a second."""

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}

    def add(self, piece: pa.Table | pa.RecordBatch) -> None:
        """Take in the next rows. All pieces have the same columns."""
        for name, column in zip(piece.schema.names, piece.columns, strict=True):
            own = self._columns.setdefault(name, _Column())
            for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
                own.add(chunk)

    def digests(self) -> dict[str, str]:
        """Column -> its digest, 16 hex digits."""
        return {name: column.hexdigest() for name, column in self._columns.items()}


class _Column:
    """Running CRC-32s of the parts of a column: values, lengths, places of nulls. A nested type has parts within."""

    def __init__(self) -> None:
        self._parts: dict[str, int] = {}
        self._rows: dict[str, int] = {}

    def add(self, array: pa.Array, part: str = "") -> None:
        if array.null_count:
            places = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))
            self._take(f"{part}null", places + self._rows.get(part, 0))
        self._rows[part] = self._rows.get(part, 0) + len(array)
        kind = array.type
        if pa.types.is_struct(kind):
            for field, inner in zip(kind, array.flatten(), strict=True):
                self.add(inner, f"{part}{field.name}.")
        elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
            if pa.types.is_list(kind):
                self._take(f"{part}length", pc.fill_null(pc.list_value_length(array), 0).to_numpy())
            self.add(array.flatten(), f"{part}item.")  # without the items of nulls, which do not count
        elif pa.types.is_string(kind):
            self._text(array.fill_null("") if array.null_count else array, part)
        elif pa.types.is_boolean(kind):
            self._take(f"{part}value", array.cast(pa.uint8()).fill_null(0).to_numpy())
        else:
            self._take(f"{part}value", (array.fill_null(0) if array.null_count else array).to_numpy())

    def _text(self, array: pa.Array, part: str) -> None:
        _, offsets, text = array.buffers()
        ends = np.frombuffer(offsets, np.int32, len(array) + 1, array.offset * 4) if len(array) else np.zeros(1, int)
        self._take(f"{part}length", np.diff(ends))
        if ends[-1] > ends[0]:
            self._take(f"{part}value", np.frombuffer(text, np.uint8, ends[-1] - ends[0], ends[0]))

    def _take(self, part: str, values: np.ndarray) -> None:
        if len(values):
            plain = np.ascontiguousarray(values).view(np.uint8).data
            self._parts[part] = zlib.crc32(plain, self._parts.get(part, 0))

    def hexdigest(self) -> str:
        return digest([self._parts, self._rows])


def digest(value: Any) -> str:
    """64-bit hex digest of a JSON value; equal values give equal digests on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def signed(value: Mapping[str, Any], *place: int) -> dict[str, Any]:
    """A JSON object with a digest of itself and of its place, such as the number of rows and that of its own."""
    return {**value, DIGEST: digest([*place, value])}


def is_damaged(value: Mapping[str, Any], *place: int) -> bool:
    """Whether an object is not what `signed` made. One without a digest, of an earlier version, passes."""
    rest = {key: own for key, own in value.items() if key != DIGEST}
    return rest != value and signed(rest, *place) != value


def sign(schema: pa.Schema, metadata: bytes, digests: Mapping[str, Any]) -> str:
    """The digest over everything but the rows: names and types of the columns, the metadata, the other digests."""
    fields = [[field.name, _kind(field.type)] for field in schema]
    others = {key: value for key, value in digests.items() if key != ALL}
    return digest([fields, metadata.decode(errors="replace"), others])


def _kind(of: pa.DataType) -> str:
    """The type in words. Parquet has a name of its own for the items of a list."""
    if pa.types.is_fixed_size_list(of):
        return f"{_kind(of.value_type)}[{of.list_size}]"
    if pa.types.is_list(of):
        return f"list<{_kind(of.value_type)}>"
    if pa.types.is_struct(of):
        return f"struct<{', '.join(f'{field.name}: {_kind(field.type)}' for field in of)}>"
    return str(of)
