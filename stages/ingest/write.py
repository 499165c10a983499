"""Bringing the tables of a data set into the project: `images.parquet`, `classes.parquet` and `skipped.parquet`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from stages.common import paths
from stages.common.artifacts import (
    CLASSES,
    IMAGES,
    SKIPPED,
    ClassesParameters,
    ImagesParameters,
    IngestParameters,
)
from stages.common.labels import names_digest
from stages.common.params import Params
from stages.common.settings import write_settings
from stages.common.tables import make_meta, write_table
from stages.ingest.classes import labelled_aliases, template_texts
from stages.ingest.dataset import check_listing, find_reader, read_listing
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
    described = ClassesParameters(
        **made_by.model_dump(),
        templates=template_texts(entry.templates if entry.templates is not None else reader.templates),
        aliases=labelled_aliases(dataset, entry.aliases, listing.names),
        fallbacks={label: keys for label, keys in enumerate(listing.keys or []) if keys},
    )
    write_table(paths.classes(dataset), classes_table(listing), make_meta(CLASSES, dataset, described))
    write_table(paths.skipped(dataset), skipped, make_meta(SKIPPED, dataset, made_by))
    numbered = names_digest(listing.names)
    places = ImagesParameters(**made_by.model_dump(), classes=numbered, unpacked=listing.root is not None)
    write_table(paths.images(dataset), images, make_meta(IMAGES, dataset, places))
    reasons = Counter(skipped["reason"].to_pylist()).most_common()
    left_out = f"; {len(skipped)} skipped: {', '.join(f'{n} {reason}' for reason, n in reasons)}" if reasons else ""
    return f"ingest {dataset}: {len(images)} images of {len(listing.names)} classes{left_out}"
