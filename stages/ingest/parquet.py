"""Reading Parquet files of other people in batches, without unpacking more than an image can have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.images import IMAGE_MIB
from stages.common.parquet_pages import check_pages
from stages.ingest.labels import LONGEST

ROWS = 1 << 16
IMAGE_BYTES = IMAGE_MIB << 20
TEXT_BYTES = 4 * LONGEST + 4
"""Of a text in UTF-8 with its length before it."""


def batches(path: Path, columns: Mapping[str, int], rows: int = ROWS) -> Iterator[pa.RecordBatch]:
    """Batches of some columns, of at most `rows` rows, and of one row where values can be large.

    Args:
        columns: how many bytes a value of each may have.

    Raises:
        UserError: a value, or a page of values, unpacks to more than the limit; nothing is unpacked then.
        ArrowException: the file is not whole Parquet.
    """
    with pq.ParquetFile(path) as file:
        largest = check_pages(path, file.metadata, columns)
        fitting = max(1, min(rows, IMAGE_BYTES // max(1, largest)))
        yield from file.iter_batches(fitting, columns=list(columns))
