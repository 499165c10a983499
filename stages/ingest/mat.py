"""Looking at a MATLAB file before it is read: a few kilobytes can unpack to gigabytes, or claim as many values."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from scipy.io import whosmat  # type: ignore[import-untyped]
from scipy.io.matlab import matfile_version  # type: ignore[import-untyped]

from stages.common.errors import UserError

MOST_BYTES = 256 << 20
MOST_VALUES = 10_000_000
"""Of one variable; the longest list of a known data set has 20,580."""

_COMPRESSED = 15
_CHUNK = 1 << 20


def check_mat(path: Path) -> None:
    """Refuse a MATLAB file that is too large when it is unpacked.

    Raises:
        UserError: as above; names the file.
        OSError, ValueError, NotImplementedError, zlib.error, struct.error: it is not such a file.
    """
    for name, shape, _ in whosmat(path):
        if math.prod(shape) > MOST_VALUES:
            raise UserError(f"'{path}' has {math.prod(shape):,} values in '{name}'; at most {MOST_VALUES:,} are read")
    with path.open("rb") as source:
        if matfile_version(path)[0] == 0:
            return  # version 4, which packs nothing
        header = source.read(128)
        order = "<" if header[126:128] == b"IM" else ">"
        total = 0
        while tag := source.read(8):
            kind, length = struct.unpack(f"{order}II", tag)
            if kind == _COMPRESSED:
                total += _unpacked(source, length, MOST_BYTES - total)
                if total > MOST_BYTES:
                    raise UserError(f"'{path}' unpacks to more than {MOST_BYTES:,} bytes; fetch it again")
            else:
                source.seek(length, 1)


def _unpacked(source: BinaryIO, length: int, most: int) -> int:
    """Bytes that the next `length` bytes unpack to; stops counting above `most`."""
    unpacker, total = zlib.decompressobj(), 0
    while length > 0 and (packed := source.read(min(length, _CHUNK))):
        length -= len(packed)
        while packed and total <= most:
            total += len(unpacker.decompress(packed, _CHUNK))
            packed = unpacker.unconsumed_tail
    return total
