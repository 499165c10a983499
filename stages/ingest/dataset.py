"""Reading a data set, checked: images with their labels, and classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from stages.common import paths
from stages.common.errors import UserError, nearest, warn
from stages.common.names import spelling
from stages.common.params import Dataset
from stages.ingest.classes import other_keys, own_fine, own_names, refuse_unsure
from stages.ingest.datasets import READERS, Listing, Reader, Request
from stages.ingest.folders import named_by_imagenet
from stages.ingest.walk import shown, unprintable


def find_reader(key: str, entry: Dataset) -> Reader:
    """The reader of a data set's entry.

    Raises:
        UserError: no such reader, or keys that it does not use.
    """
    if entry.reader not in READERS:
        known = list(READERS)
        raise UserError(
            f"datasets.{key}.reader '{entry.reader}' is unknown{nearest(entry.reader, known)}; "
            f"there are: {', '.join(known)}"
        )
    users = {
        "manifest": ["manifest", "images"],
        "columns": ["manifest", "webdataset", "huggingface", "images"],
        "classes": ["images"],
    }
    for option, readers in users.items():
        if option in entry.model_fields_set and entry.reader not in readers:
            raise UserError(f"datasets.{key}.{option} is for the reader {' or '.join(readers)}, not '{entry.reader}'")
    if entry.reader == "images" and entry.names is not None:
        raise UserError(f"datasets.{key}.names is not for the reader 'images'; write the names under classes")
    return READERS[entry.reader]


def read_listing(key: str, entry: Dataset, reader: Reader, download: bool) -> Listing:
    """What the reader finds. Downloads the data set first if that is wanted and the root is missing or empty.

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
    if root.is_file():
        raise UserError(f"datasets.{key}.root '{root}' is a file; set root to the folder that holds it")
    if not root.is_dir():
        fetch = "; or set ingest.download: true" if reader.download else ""
        raise UserError(f"datasets.{key}.root '{root}' does not exist; expected there: {source}{fetch}")
    if entry.reader == "images" and entry.classes is None:
        raise UserError(
            f"datasets.{key}.classes is missing; images without labels need it: a list of names, a text file in the "
            "root, or the key of another data set"
        )
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


def check_listing(listing: Listing, given: Mapping[int | str, str] | Sequence[str] | None = None) -> list[str]:
    """Refuse what would be scored wrongly: no images, an image twice, names that are not text, or two classes that
    share a
    name by accident.

    Args:
        given: `names` of params.yaml. Names from there, or from a published list, may repeat.

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
