"""What `ingest` left out of the data set, as a line under the table."""

from __future__ import annotations

from collections import Counter

from stages.common import paths, tables
from stages.common.artifacts import SKIPPED


def skipped_notes(dataset: str) -> list[str]:
    """One line that counts the images left out by their reasons; none where all were read.

    Raises:
        UserError: `skipped.parquet` is not whole, or is another artifact.
    """
    path = paths.skipped(dataset)
    if not path.exists():  # it travels with the images, which a report can do without
        return []
    table, _ = tables.read_table(path, SKIPPED, ["reason"])
    reasons = Counter(table["reason"].to_pylist()).most_common()
    if not reasons:
        return []
    images = "1 image was" if len(table) == 1 else f"{len(table)} images were"
    return [f"{images} skipped ({', '.join(f'{count} {reason}' for reason, count in reasons)}): `{path}`."]
