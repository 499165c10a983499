"""ingest: a data set on disk -> `data/<dataset>/images.parquet`, `classes.parquet` and `skipped.parquet`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import open_clip
import pyarrow as pa

from stages.common import paths
from stages.common.cli import parse_job
from stages.common.errors import UserError, nearest, run, warn
from stages.common.names import spelling
from stages.common.params import Dataset
from stages.common.settings import write_settings
from stages.common.tables import make_meta, write_table
from stages.ingest.datasets import READERS, Listing, Reader, Request
from stages.ingest.folders import named_by_imagenet
from stages.ingest.labels import first_unsure
from stages.ingest.probe import Probe, probe_all, refuse_bad
from stages.ingest.walk import refuse_links, shown, unprintable

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
    {
        "label": pa.int32(),
        "name": pa.string(),
        "superordinate": pa.string(),
        "coarse": pa.list_(pa.string()),
        "fine": pa.list_(pa.string()),
    }
)
SKIPPED = pa.schema({"image_id": pa.string(), "reason": pa.string()})


def find_reader(key: str, entry: Dataset) -> Reader:
    """The reader of a data set's entry.

    Raises:
        UserError: no such reader, or keys that it has no use for.
    """
    if entry.reader not in READERS:
        known = list(READERS)
        raise UserError(
            f"datasets.{key}.reader '{entry.reader}' is unknown{nearest(entry.reader, known)}; "
            f"there are: {', '.join(known)}"
        )
    users = {"manifest": ["manifest"], "columns": ["manifest", "webdataset", "huggingface"]}
    for option, readers in users.items():
        if option in entry.model_fields_set and entry.reader not in readers:
            raise UserError(f"datasets.{key}.{option} is for the reader {' or '.join(readers)}, not '{entry.reader}'")
    return READERS[entry.reader]


def read_listing(key: str, entry: Dataset, reader: Reader, download: bool) -> Listing:
    """What the reader finds, after the download if that is wanted and the root is missing or empty.

    Raises:
        UserError: no such root, or what the reader says.
    """
    root = Path(entry.root)
    source = f"{reader.layout} ({reader.get})" if reader.get else reader.layout
    if download and not (root.is_dir() and any(root.iterdir())):
        if reader.download is None:
            raise UserError(f"datasets.{key}: '{entry.reader}' cannot be downloaded; put into '{root}': {source}")
        warn(f"downloading {entry.reader} into '{root}'")
        reader.download(root)
    if not root.is_dir():
        fetch = "; or set ingest.download: true" if reader.download else ""
        raise UserError(f"datasets.{key}.root '{root}' does not exist; expected there: {source}{fetch}")
    request = Request(root, entry.split, paths.unpacked(key), entry.manifest, entry.columns)
    try:
        listing = reader.read(request)
    except UserError as error:
        if not reader.get:
            raise
        raise UserError(f"{error}; expected in the root: {source}") from None
    listing = named_by_imagenet(listing)
    called = listing.called or listing.names
    if listing.by_name and isinstance(entry.names, list):
        refuse_unsure(key, called)
    names = own_names(key, listing.names, entry.names, called)
    fine = own_fine(names, listing.fine)
    return replace(listing, names=names, fine=fine, keys=other_keys(listing, names, reader.keys))


def refuse_unsure(key: str, called: list[str]) -> None:
    """Refuse a list of names for classes whose order has to be guessed.

    Raises:
        UserError: their letters and their numbers give another order.
    """
    unsure = first_unsure(called)
    if unsure:
        raise UserError(
            f"datasets.{key}.names is a list, and it is not clear whether '{unsure[0]}' or '{unsure[1]}' comes first; "
            f"write which name is whose, as names: {{'{unsure[0]}': ..., '{unsure[1]}': ...}}"
        )


def own_names(
    key: str,
    found: list[str],
    given: Mapping[int | str, str] | Sequence[str] | None,
    called: Sequence[str] | None = None,
) -> list[str]:
    """The classes' names, in place of those found: by label, or by the name found: exactly, or else in any spelling.

    Args:
        called: what the classes are called on disk, which `given` may use as well.

    Raises:
        UserError: as many as there are classes are wanted; a name given for a class that is not there, or twice.
    """
    if given is None:
        return found
    if not isinstance(given, Mapping):
        if len(given) != len(found):
            raise UserError(f"datasets.{key}.names has {len(given)} names for {len(found)} classes")
        return list(given)
    by_name = {str(name): name_given for name, name_given in given.items()}
    classes = list(zip(called or found, found, strict=True))
    # Folders "Cat" and "cat" differ in nothing but their spelling.
    exact = [next((name for name in both if name in by_name), None) for both in classes]
    rest = [{spelling(name) for name in both} for both, name in zip(classes, exact, strict=True) if name is None]
    wanted: dict[str, str] = {}
    for name in [name for name in by_name if name not in exact]:
        form = spelling(name)
        if not any(form in forms for forms in rest) and any(form in map(spelling, both) for both in classes):
            raise UserError(f"datasets.{key}.names names the class '{name}' twice, in two spellings; keep one")
        if not any(form in forms for forms in rest):
            raise UserError(f"datasets.{key}.names: no class is called '{name}'{nearest(name, found)}")
        if wanted.setdefault(form, by_name[name]) != by_name[name]:
            raise UserError(f"datasets.{key}.names names the class '{name}' twice, in two spellings; keep one")
    return [
        by_name[name] if name is not None else next((wanted[f] for f in map(spelling, both) if f in wanted), both[1])
        for both, name in zip(classes, exact, strict=True)
    ]


def own_fine(names: Sequence[str], found: Sequence[Sequence[str]] | None) -> list[list[str]] | None:
    """The names by which each class is right: the one it has here, then those found, each once in whatever spelling."""
    if found is None:
        return None
    fine = []
    for name, others in zip(names, found, strict=True):
        forms: dict[str, str] = {}
        for form in (name, *others):
            forms.setdefault(spelling(form), form)
        fine.append(list(forms.values()))
    return fine


def other_keys(listing: Listing, names: Sequence[str], published: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Keys under which a description file may list each class, where it does not have the class's name; best first.

    They are the name that the reader found, what is known of published files, and the other names that are right.

    Args:
        listing: what the reader found.
        names: the classes' names, which `params.yaml` may have replaced.
    """
    keys = []
    for label, (name, found) in enumerate(zip(names, listing.names, strict=True)):
        listed = listing.keys[label] if listing.keys else []
        right = listing.fine[label] if listing.fine else []
        forms: dict[str, str] = {}
        for form in (name, found, *listed, *published.get(found, ()), *right):
            forms.setdefault(spelling(form), form)
        keys.append(list(forms.values())[1:])
    return keys


def labelled_aliases(key: str, aliases: Mapping[int | str, str], names: Sequence[str]) -> dict[int, str]:
    """Label -> key in description files, from an entry's `aliases`, whose keys are class names or labels.

    A label says more than a name that several classes have.

    Raises:
        UserError: no such class, one class with two aliases, or a number that may be a label or a name.
    """
    by_shared_name: dict[int, str] = {}
    one_by_one: dict[int, str] = {}
    for wanted, description_key in aliases.items():
        labels = [label for label, name in enumerate(names) if spelling(name) == spelling(str(wanted))]
        if isinstance(wanted, int) and labels and labels != [wanted]:
            at_label = f"; the class of label {wanted} is '{names[wanted]}'" if 0 <= wanted < len(names) else ""
            raise UserError(
                f"datasets.{key}.aliases: {wanted} is the name of the class of label {labels[0]}{at_label}; write the "
                f"name of the class that you mean in quotes, as '{wanted}'"
            )
        if isinstance(wanted, int) or (not labels and wanted.isdecimal()):
            labels = [int(wanted)]
        if not labels or not 0 <= labels[0] < len(names):
            near = nearest(str(wanted), list(names))
            raise UserError(f"datasets.{key}.aliases: no class has the name or label '{wanted}'{near}")
        found = one_by_one if len(labels) == 1 else by_shared_name
        for label in labels:
            if found.setdefault(label, description_key) != description_key:
                raise UserError(
                    f"datasets.{key}.aliases gives the class '{names[label]}' (label {label}) two keys, "
                    f"'{found[label]}' and '{description_key}'; keep one"
                )
    return {**by_shared_name, **one_by_one}


def template_texts(templates: str | list[str]) -> list[str] | str:
    """Templates with `{name}`: one of open_clip's sets, or as given. A file's name stays, because `refine` reads it."""
    sets = {"imagenet7": open_clip.SIMPLE_IMAGENET_TEMPLATES, "imagenet80": open_clip.OPENAI_IMAGENET_TEMPLATES}
    if isinstance(templates, str) and templates in sets:
        return [template("{name}") for template in sets[templates]]
    return templates


def check_listing(listing: Listing, given: Mapping[int | str, str] | Sequence[str] | None = None) -> list[str]:
    """Refuse what would be scored wrongly: no images, one twice, names that are not text, or an accidental namesake.

    Args:
        given: `names` of params.yaml. What is named there, or by a published list, may be called like another class.

    Returns:
        Notes for the user.

    Raises:
        UserError: as above.
    """
    if not listing.images:
        raise UserError("the data set has no images in this split")
    again = [image_id for image_id, count in Counter(image_id for image_id, _ in listing.images).items() if count > 1]
    if again:
        raise UserError(f"{len(again)} images are listed more than once, such as '{again[0]}'; list each once")
    _refuse_unprintable(listing)
    labels_of: dict[str, list[int]] = {}
    for label, name in enumerate(listing.names):
        labels_of.setdefault(spelling(name), []).append(label)
    shared = {form: labels for form, labels in labels_of.items() if len(labels) > 1}
    values = given.values() if isinstance(given, Mapping) else given or ()
    meant = set(map(spelling, values)) if listing.by_name else set(shared)
    twice = sorted({listing.names[label] for form, labels in shared.items() if form not in meant for label in labels})
    if twice:
        raise UserError(
            f"several classes have the same name: {', '.join(twice)}; rename the folders or labels apart, or give each "
            "class its name under `names` of the data set in params.yaml"
        )
    if not shared:
        return []
    labels = next(iter(shared.values()))
    which = f"such as '{listing.names[labels[0]]}' (labels {', '.join(map(str, labels))})"
    return [f"{len(shared)} names are those of several classes, {which}; these count as different classes"]


def _refuse_unprintable(listing: Listing) -> None:
    """Refuse names that are not UTF-8, which no table can hold.

    Raises:
        UserError: names the first of them.
    """
    nested = [*(listing.coarse or []), *(listing.fine or [])]
    above = listing.superordinate if isinstance(listing.superordinate, list) else []
    names = chain((image_id for image_id, _ in listing.images), listing.names, above, *nested)
    odd = [name for name in names if unprintable(name)]
    if odd:
        raise UserError(
            f"{len(odd)} names of files, folders or classes are not UTF-8, such as '{shown(odd[0])}'; rename them"
        )


def images_table(listing: Listing, probes: dict[str, Probe]) -> pa.Table:
    """One row an image that can be read, by image_id."""
    rows = [
        {"image_id": image_id, "label": label, "width": p.width, "height": p.height, "content": p.content}
        for image_id, label in sorted(listing.images)
        for p in [probes[image_id]]
        if not p.problem
    ]
    return pa.Table.from_pylist(rows, schema=IMAGES)


def skipped_table(probes: Mapping[str, Probe]) -> pa.Table:
    """One row an image that cannot be read, by image_id."""
    bad = sorted((image_id, p.problem) for image_id, p in probes.items() if p.problem)
    return pa.Table.from_pylist([{"image_id": i, "reason": reason} for i, reason in bad], schema=SKIPPED)


def classes_table(listing: Listing) -> pa.Table:
    """One row a class, by label."""
    count = len(listing.names)
    above = listing.superordinate
    columns: dict[str, Sequence[Any]] = {
        "label": list(range(count)),
        "name": listing.names,
        "superordinate": above if isinstance(above, list) else [above] * count,
        "coarse": listing.coarse or [None] * count,
        "fine": [names if len(names) > 1 else None for names in listing.fine or [[]] * count],
    }
    return pa.table(columns, schema=CLASSES)


def main() -> None:
    job = parse_job("ingest", __doc__, "dataset")
    entry, knobs = job.params.datasets[job.dataset], job.params.ingest
    reader = find_reader(job.dataset, entry)
    listing = read_listing(job.dataset, entry, reader, knobs.download)
    notes = check_listing(listing, entry.names)
    if listing.root is None:
        refuse_links(Path(entry.root), [image_id for image_id, _ in listing.images])
    for note in (*(() if entry.names else listing.naming), *listing.notes, *notes):
        print(f"ingest {job.dataset}: {note}")
    root = listing.root or Path(entry.root)
    image_ids = [image_id for image_id, _ in listing.images]
    probes = dict(zip(image_ids, probe_all(root, image_ids), strict=True))
    if knobs.on_bad_image == "fail" or all(p.problem for p in probes.values()):
        refuse_bad(root, probes)
    images, skipped = images_table(listing, probes), skipped_table(probes)
    write_settings(job.params, job.dataset, "dataset")
    made_by = {"reader": entry.reader, "split": entry.split}
    described = {
        "templates": template_texts(entry.templates if entry.templates is not None else reader.templates),
        "aliases": labelled_aliases(job.dataset, entry.aliases, listing.names),
        "fallbacks": {label: keys for label, keys in enumerate(listing.keys or []) if keys},
    }
    meta = make_meta("classes", job.dataset, parameters={**made_by, **described})
    write_table(paths.classes(job.dataset), classes_table(listing), meta)
    meta = make_meta("skipped", job.dataset, parameters=made_by)
    write_table(paths.skipped(job.dataset), skipped, meta)
    meta = make_meta("images", job.dataset, parameters={**made_by, "unpacked": listing.root is not None})
    write_table(paths.images(job.dataset), images, meta)
    reasons = Counter(skipped["reason"].to_pylist()).most_common()
    left_out = f"; {len(skipped)} skipped: {', '.join(f'{n} {reason}' for reason, n in reasons)}" if reasons else ""
    print(f"ingest {job.dataset}: {len(images)} images of {len(listing.names)} classes{left_out}")


if __name__ == "__main__":
    run(main)
