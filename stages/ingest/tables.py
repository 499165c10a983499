"""The tables that `ingest` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from stages.common.artifacts import CLASSES, IMAGES, SKIPPED
from stages.ingest.datasets import Listing
from stages.ingest.probe import Probe


def images_table(listing: Listing, probes: dict[str, Probe]) -> pa.Table:
    """One row for each readable image, by image_id."""
    rows = [
        {"image_id": image_id, "label": label, "width": p.width, "height": p.height, "content": p.content}
        for image_id, label in sorted(listing.images)
        for p in [probes[image_id]]
        if not p.problem
    ]
    return pa.Table.from_pylist(rows, schema=IMAGES.columns)


def skipped_table(probes: Mapping[str, Probe]) -> pa.Table:
    """One row for each unreadable image, by image_id."""
    bad = sorted((image_id, p.problem) for image_id, p in probes.items() if p.problem)
    return pa.Table.from_pylist([{"image_id": i, "reason": reason} for i, reason in bad], schema=SKIPPED.columns)


def classes_table(listing: Listing) -> pa.Table:
    """One row for each class, by label."""
    count = len(listing.names)
    above = listing.superordinate
    columns: dict[str, Sequence[Any]] = {
        "label": list(range(count)),
        "name": listing.names,
        "superordinate": above if isinstance(above, list) else [above] * count,
        "coarse": listing.coarse or [None] * count,
        "fine": [names if len(names) > 1 else None for names in listing.fine or [[]] * count],
    }
    return pa.table(columns, schema=CLASSES.columns)
