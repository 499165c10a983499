"""Bringing the tables of a data set into the project: `images.parquet`, `classes.parquet` and `skipped.parquet`."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from stages.common import paths
from stages.common.artifacts import (
    CLASSES,
    IMAGES,
    SKIPPED,
    ImagesParameters,
    IngestParameters,
)
from stages.common.labels import names_digest
from stages.common.params import Params
from stages.common.settings import write_settings
from stages.common.tables import make_meta, write_table
from stages.ingest.dataset import check_listing, find_reader, read_listing
from stages.ingest.given_classes import described, given_classes
from stages.ingest.probe import probe_all, refuse_bad
from stages.ingest.tables import classes_table, images_table, skipped_table
from stages.ingest.walk import refuse_links


def ingest_dataset(params: Params, dataset: str) -> str:
    """Read a data set and write its tables; prints notes as they come, and returns the line that ends them.

    Args:
        params: as of `Params.for_dataset`.

    Raises:
        UserError: the data set is missing, not of its layout, or has an image that cannot be read.
    """
    entry, knobs = params.datasets[dataset], params.ingest
    reader = find_reader(dataset, entry)
    listing = read_listing(dataset, entry, reader, knobs.download)
    if entry.classes is None:
        parameters = described(dataset, entry, reader, listing)
    else:
        given = given_classes(params, dataset)
        parameters, own = given.described, given.listing
        listing = replace(own, images=listing.images, root=listing.root, notes=(*listing.notes, *given.notes))
    notes = check_listing(listing, entry.names)
    image_ids = [image_id for image_id, _ in listing.images]
    if listing.root is None:
        refuse_links(Path(entry.root), image_ids)
    for note in (*(() if entry.names else listing.naming), *listing.notes, *notes):
        print(f"ingest {dataset}: {note}")
    root = listing.root or Path(entry.root)
    probes = dict(zip(image_ids, probe_all(root, image_ids), strict=True))
    if knobs.on_bad_image == "fail" or all(p.problem for p in probes.values()):
        refuse_bad(root, probes)
    images, skipped = images_table(listing, probes), skipped_table(probes)
    write_settings(params, dataset, "dataset")
    made_by = IngestParameters(reader=entry.reader, split=entry.split)
    write_table(paths.classes(dataset), classes_table(listing), make_meta(CLASSES, dataset, parameters))
    write_table(paths.skipped(dataset), skipped, make_meta(SKIPPED, dataset, made_by))
    numbered = names_digest(listing.names)
    places = ImagesParameters(**made_by.model_dump(), classes=numbered, unpacked=listing.root is not None)
    write_table(paths.images(dataset), images, make_meta(IMAGES, dataset, places))
    reasons = Counter(skipped["reason"].to_pylist()).most_common()
    left_out = f"; {len(skipped)} skipped: {', '.join(f'{n} {reason}' for reason, n in reasons)}" if reasons else ""
    what = "images without labels," if entry.classes is not None else "images of"
    return f"ingest {dataset}: {len(images)} {what} {len(listing.names)} classes{left_out}"
