"""ingest: a data set on disk -> `data/<dataset>/images.parquet` and `classes.parquet`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import open_clip
import pyarrow as pa

from stages.common import paths
from stages.common.cli import parse_job
from stages.common.errors import UserError, nearest, run
from stages.common.names import spelling
from stages.common.params import Dataset
from stages.common.tables import make_meta, write_table
from stages.ingest.datasets import READERS, Listing, Reader
from stages.ingest.probe import Probe, probe_all

IMAGES = pa.schema(
    {
        "image_id": pa.string(),
        "label": pa.int32(),
        "width": pa.int32(),
        "height": pa.int32(),
        "content": pa.string(),
    }
)
CLASSES = pa.schema(
    {"label": pa.int32(), "name": pa.string(), "superordinate": pa.string(), "coarse": pa.list_(pa.string())}
)


def find_reader(key: str, entry: Dataset) -> Reader:
    """The reader of a data set's entry.

    Raises:
        UserError: no such reader, or no such root.
    """
    if entry.reader not in READERS:
        known = list(READERS)
        raise UserError(
            f"datasets.{key}.reader '{entry.reader}' is unknown{nearest(entry.reader, known)}; "
            f"there are: {', '.join(known)}"
        )
    reader = READERS[entry.reader]
    if not Path(entry.root).is_dir():
        raise UserError(f"datasets.{key}.root '{entry.root}' does not exist; expected there: {reader.layout}")
    return reader


def template_texts(templates: str | list[str]) -> list[str]:
    """Templates with `{name}`, from the name of one of open_clip's sets or as given.

    Raises:
        UserError: a template without `{name}`.
    """
    if isinstance(templates, list):
        without = [template for template in templates if "{name}" not in template]
        if without or not templates:
            raise UserError(f"a template must contain {{name}}: {without}")
        return templates
    sets = {"imagenet7": open_clip.SIMPLE_IMAGENET_TEMPLATES, "imagenet80": open_clip.OPENAI_IMAGENET_TEMPLATES}
    return [template("{name}") for template in sets[templates]]


def check_listing(listing: Listing) -> None:
    """Refuse what would be scored wrongly: no images, or two classes of one name, which would share descriptions.

    Raises:
        UserError: as above.
    """
    if not listing.images:
        raise UserError("the data set has no images in this split")
    spellings = [spelling(name) for name in listing.names]
    twice = sorted({name for name, form in zip(listing.names, spellings, strict=True) if spellings.count(form) > 1})
    if twice:
        raise UserError(f"several classes have the same name: {', '.join(twice)}; rename them apart")


def images_table(listing: Listing, probes: dict[str, Probe]) -> pa.Table:
    """One row an image, by image_id."""
    rows = [
        {"image_id": image_id, "label": label, "width": p.width, "height": p.height, "content": p.content}
        for image_id, label in sorted(listing.images)
        for p in [probes[image_id]]
    ]
    return pa.Table.from_pylist(rows, schema=IMAGES)


def classes_table(listing: Listing) -> pa.Table:
    """One row a class, by label."""
    count = len(listing.names)
    coarse: Sequence[list[str] | None] = listing.coarse or [None] * count
    return pa.table([list(range(count)), listing.names, [listing.superordinate] * count, coarse], schema=CLASSES)


def main() -> None:
    job = parse_job("ingest", __doc__, "dataset")
    entry = job.params.datasets[job.dataset]
    reader = find_reader(job.dataset, entry)
    root = Path(entry.root)
    listing = reader.read(root, entry.split)
    check_listing(listing)
    image_ids = [image_id for image_id, _ in listing.images]
    probes = dict(zip(image_ids, probe_all(root, image_ids), strict=True))
    made_by = {"reader": entry.reader, "split": entry.split}
    templates = template_texts(entry.templates if entry.templates is not None else reader.templates)
    meta = make_meta("classes", job.dataset, parameters={**made_by, "templates": templates, "aliases": entry.aliases})
    write_table(paths.classes(job.dataset), classes_table(listing), meta)
    meta = make_meta("images", job.dataset, parameters={**made_by, "root": entry.root})
    write_table(paths.images(job.dataset), images_table(listing, probes), meta)
    print(f"ingest {job.dataset}: {len(image_ids)} images of {len(listing.names)} classes")


if __name__ == "__main__":
    run(main)
