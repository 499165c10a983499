"""How much a Parquet file unpacks to, before it is unpacked.

Parquet's footer does not say how large single values are, and a few kilobytes can unpack to gigabytes. The headers of
the pages do say it: a value lies in one page, whose header has its size before and after packing. They are read first.

The footer is read here as well, because pyarrow ends the whole process if it is asked for a column of a damaged footer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from stages.common.errors import UserError

PAGE_BYTES = 64 << 20
"""Pages of texts and small images have about 1 MB."""
EXPANSION = 20
"""A larger page may have this many times its packed size: images are packed already, and expand little."""

PAGE_HEAD = 1 << 20
"""Bytes of a page that are no values: which rows are null."""

_CHUNK = 1 << 12
_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12
"""Types of Thrift's compact protocol."""


class _Page(NamedTuple):
    unpacked: int
    packed: int
    values: int
    """Rows; of a dictionary, its entries."""
    is_dictionary: bool


class _Chunk(NamedTuple):
    """A column in a row group."""

    column: str
    start: int
    end: int


def check_pages(path: Path, columns: Mapping[str, int] | None = None) -> int:
    """Bytes of the largest page of some columns, unpacked; nothing is unpacked here.

    Args:
        columns: how many bytes a value of each may have; None looks at all columns, and at pages alone.

    Raises:
        UserError: a value, or a page of values, unpacks to more than the limit.
        ArrowInvalid: the footer or a page's header cannot be read.
    """
    largest = row = 0
    with path.open("rb") as source:
        for rows, chunks in _row_groups(source):
            for chunk in chunks:
                name = chunk.column.split(".")[0]
                if columns is not None and name not in columns:
                    continue
                first = row
                for page in _pages(source, chunk):
                    largest = max(largest, page.unpacked)
                    expands = page.unpacked > max(PAGE_BYTES, EXPANSION * page.packed)
                    if expands or (columns and page.unpacked > PAGE_HEAD + columns[name] * page.values):
                        allowed = f"; a value has at most {columns[name]:,} bytes" if columns else ""
                        raise UserError(
                            f"'{path}', column '{chunk.column}', from row {first} on: {page.values:,} values unpack "
                            f"from {page.packed:,} to {page.unpacked:,} bytes{allowed}; remove such rows, or make the "
                            "file again"
                        )
                    first += 0 if page.is_dictionary else page.values
            row += rows
    return largest


def _row_groups(source: BinaryIO) -> Iterator[tuple[int, list[_Chunk]]]:
    """The number of rows and the columns of each row group, from the footer."""
    size = source.seek(0, os.SEEK_END)
    source.seek(max(0, size - 8))
    length = int.from_bytes(source.read(4), "little")
    if length + 8 > size:
        raise pa.ArrowInvalid("it has no footer")
    source.seek(size - 8 - length)
    try:
        footer, _ = _struct(source.read(length), 0)
        groups = [(_size(group[3]), [_chunk(column[3]) for column in group[1]]) for group in footer.get(4) or []]
        promised = _size(footer[3])
    except (IndexError, KeyError, ValueError, TypeError, AttributeError):
        raise pa.ArrowInvalid("its footer is damaged") from None
    there = sum(rows for rows, _ in groups)
    if there != promised:  # pyarrow reads those of the row groups, without a word
        raise pa.ArrowInvalid(f"its footer promises {promised} rows, and row groups of {there}")
    yield from groups


def _chunk(described: dict[int, Any]) -> _Chunk:
    # A column without rows may have a dictionary and no page of data, or nothing.
    start = min((place for place in map(_size, (described.get(11, 0), described[9])) if place), default=0)
    name = b".".join(described[3]).decode(errors="replace")
    return _Chunk(name, start, start + _size(described[7]))


def _size(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError("not a size")
    return value


def _pages(source: BinaryIO, chunk: _Chunk) -> Iterator[_Page]:
    """The pages of a column in a row group, from their headers."""
    place = chunk.start
    while place < chunk.end:
        try:
            source.seek(place)
            content = source.read(_CHUNK)
            try:
                header, length = _struct(content, 0)
            except IndexError:  # statistics in it can be long
                content += source.read(1 << 24)
                header, length = _struct(content, 0)
            described = header.get(5) or header.get(7) or header.get(8) or {}
            page = _Page(_size(header[2]), _size(header[3]), _size(described.get(1, 0)), 7 in header)
        except (IndexError, KeyError, ValueError, AttributeError, OverflowError):
            raise pa.ArrowInvalid(f"damaged at byte {place}, where a page begins") from None
        yield page
        place += length + page.packed


def _struct(content: bytes, place: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """A structure in Thrift's compact protocol: values by field, and where it ends.

    Raises:
        IndexError: `content` ends before.
        ValueError: something else is there.
    """
    found: dict[int, Any] = {}
    field = 0
    while head := content[place]:
        place += 1
        kind = head & 0x0F
        if head >> 4:
            field += head >> 4
        else:
            field, place = _zigzag(content, place)
        found[field], place = _value(content, place, kind, depth)
    return found, place + 1


def _value(content: bytes, place: int, kind: int, depth: int) -> tuple[Any, int]:
    """A number, text, list or structure, None for what is of no interest, and where it ends."""
    if depth > 8:
        raise ValueError("nested too deeply")
    if kind in _BOOLEANS:
        return None, place
    if kind in _INTEGERS:
        return _zigzag(content, place)
    if kind == _STRUCT:
        return _struct(content, place, depth + 1)
    if kind in (_BYTE, _DOUBLE):
        return None, place + (1 if kind == _BYTE else 8)
    if kind == _BINARY:
        length, place = _varint(content, place)
        return content[place : place + length], place + length
    if kind in _LISTS:
        head, place = content[place], place + 1
        count = head >> 4
        if count == 15:
            count, place = _varint(content, place)
        if count > len(content):
            raise ValueError("longer than the file")
        items = []
        for _ in range(count):
            # Booleans in lists take a byte each.
            item, place = _value(content, place, _BYTE if head & 0x0F in _BOOLEANS else head & 0x0F, depth + 1)
            items.append(item)
        return items, place
    raise ValueError(f"unknown type {kind}")


def _varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("too long a number")


def _zigzag(content: bytes, place: int) -> tuple[int, int]:
    value, place = _varint(content, place)
    return (value >> 1) ^ -(value & 1), place
