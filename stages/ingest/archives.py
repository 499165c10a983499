"""Data sets whose images are bytes in archives: webdataset tars, Hugging Face's Parquet files.

Stages read files, so the images are unpacked once, into a folder that `ingest` owns.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from stages.common.digests import digest
from stages.common.errors import UserError, naming
from stages.common.tables import write_json
from stages.ingest.labels import class_order
from stages.ingest.listing import Listing, Request
from stages.ingest.walk import refuse_links, shown, some, unprintable

LISTING = "listing.json"

NO_FILE_NAME = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
"""Errors that a name in an archive causes: it is too long, or names both a file and a folder."""


class Sample(NamedTuple):
    """An image of an archive."""

    image_id: str
    data: bytes
    label: str | None
    """Its class: a name, or a number as text; None if no image of the data set has one."""


def unpack(
    request: Request,
    sources: Sequence[Path],
    samples: Iterator[Sample],
    names: list[str] | None,
    others: Callable[[set[str]], Iterable[str]],
    notes: list[str] | None = None,
    *,
    labelled: bool = True,
) -> Listing:
    """Write the images of archives into `request.unpacked`, unless those of the same archives are there.

    Args:
        sources: every file that is read.
        names: the classes' names, if labels are numbers that count them.
        others: gives the labels of the data set's other splits, from those of this one; called where there are no
            `names`.
        notes: what `samples` leaves out; complete after the last sample.
        labelled: whether the samples have labels.

    Raises:
        UserError: two images of one name, or a label beyond the names.
    """
    folder = request.unpacked
    relative = [path.relative_to(request.root).as_posix() for path in sources]
    refuse_links(request.root, relative)
    odd = next(filter(unprintable, relative), None)
    if odd is not None:
        raise UserError(f"the name of the file '{shown(odd)}' in '{request.root}' is not UTF-8; rename it")
    facts = [[name, path.stat().st_size, path.stat().st_mtime_ns] for name, path in zip(relative, sources, strict=True)]
    place = shown(str(request.root.absolute()))
    unlabelled = () if labelled else ("without labels",)
    stamp = digest([VERSION, facts, place, names, request.split, request.columns.model_dump(), *unlabelled])
    kept = _earlier(folder, stamp)
    if kept is not None:
        return kept
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    label_of_image: dict[str, str | None] = {}
    try:
        temporary.mkdir(parents=True)
        for sample in samples:
            path = temporary / sample.image_id
            if sample.image_id in label_of_image:
                raise UserError(
                    f"two images of the archives in '{request.root}' are called '{sample.image_id}'; rename one, or "
                    "remove it"
                )
            label_of_image[sample.image_id] = sample.label
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with naming(path):
                    path.write_bytes(sample.data)
            except OSError as error:
                if error.errno not in NO_FILE_NAME:
                    raise
                reason = (error.strerror or str(error)).lower()
                raise UserError(f"the image '{sample.image_id:.100}' cannot be unpacked: {reason}; rename it") from None
        if not label_of_image:
            what = "image with a label" if labelled else "image"
            raise UserError("; ".join([f"the archives in '{request.root}' have no {what}", *(notes or ())]))
        labels = {image_id: label for image_id, label in label_of_image.items() if label is not None}
        if labelled:
            listing = _labelled(labels, names, others, folder)
        else:
            listing = Listing([(image_id, None) for image_id in label_of_image], [], root=folder)
        listing = replace(listing, notes=(*listing.notes, *(notes or ())))
        write_json(
            temporary / LISTING,
            {
                "stamp": stamp,
                "images": listing.images,
                "names": listing.names,
                "by_name": listing.by_name,
                "notes": listing.notes,
            },
        )
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return listing


VERSION = 3
"""Version of what is made from archives; raised when that changes."""


def _labelled(
    label_of_image: dict[str, str], names: list[str] | None, others: Callable[[set[str]], Iterable[str]], root: Path
) -> Listing:
    """The listing of all images, by the given names or by the labels of all splits."""
    if names is None:
        ours = set(label_of_image.values())
        classes = class_order(ours.union(others(ours)))
        places = {name: place for place, name in enumerate(classes)}
    else:
        classes = names
        places = {str(place): place for place in range(len(names))}
        whole = {
            label: str(int(float(label))) for label in label_of_image.values() if re.fullmatch(r"\d+(\.0*)?", label)
        }
        label_of_image = {image_id: whole.get(label, label) for image_id, label in label_of_image.items()}
    for image_id, label in label_of_image.items():
        if label not in places:
            raise UserError(
                f"'{image_id}' has the label '{label}'; expected 0 to {len(classes) - 1}, as the data set names "
                f"{len(classes)} classes; correct the label, or the names"
            )
    images = [(image_id, places[label]) for image_id, label in label_of_image.items()]
    absent = [] if names is not None else sorted(set(classes) - set(label_of_image.values()))
    note = (f"{len(absent)} of {len(classes)} classes have no images in this split: {some(absent)}",) if absent else ()
    return Listing(images, classes, root=root, by_name=names is None, notes=note)


def _earlier(folder: Path, stamp: str) -> Listing | None:
    """The listing of images that were unpacked before, if they are from these archives and exist."""
    try:
        found = json.loads((folder / LISTING).read_text(encoding="utf-8"))
        images = [(image_id, label) for image_id, label in found["images"]]
        if found["stamp"] != stamp or not all((folder / image_id).is_file() for image_id, _ in images):
            return None
        return Listing(images, found["names"], root=folder, by_name=found["by_name"], notes=tuple(found["notes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


TAR = re.compile(r"\.(tar(\.(gz|bz2|xz))?|tgz|tbz2?|txz)$", re.IGNORECASE)
"""Endings of tars, compressed or not."""


def stem(archive: Path) -> str:
    """The name of an archive without its ending, such as `.tar.gz`."""
    return TAR.sub("", archive.name) if TAR.search(archive.name) else archive.stem


def check_shards(shards: Sequence[Path]) -> list[str]:
    """Notes on numbers that are missing among the shards of a split.

    Raises:
        UserError: a shard such as `<name>-00000-of-00002` is missing.
    """
    numbered: dict[tuple[Path, str, int], set[int]] = {}
    plain: dict[tuple[Path, str, str], set[int]] = {}
    for shard in shards:
        name = stem(shard)
        total = re.fullmatch(r"(.*?)-?(\d+)-of-(\d+)(.*)", name)
        number = re.fullmatch(r"(.*?)(\d+)", name)
        if total:
            there = numbered.setdefault((shard.parent, total[1], int(total[3])), set())
            if int(total[2]) in there:
                raise UserError(f"'{shown(str(shard))}' and another file are both number {total[2]}; keep one")
            there.add(int(total[2]))
        elif number:
            plain.setdefault((shard.parent, number[1], shard.name[len(name) :]), set()).add(int(number[2]))
    for (folder, name, count), there in numbered.items():
        missing = sorted(set(range(count)) - there)
        if missing:
            files = shown(f"{folder / name}-*-of-{count:05d}")
            raise UserError(
                f"{len(missing)} of the {count} files '{files}' are missing, such as number {missing[0]}; fetch them"
            )
    notes = []
    for (folder, name, suffix), there in plain.items():
        gaps = sorted(set(range(min(there), max(there))) - there) if max(there) < 10**6 else []
        if gaps:
            where = shown(str(folder / f"{name}*{suffix}"))
            notes.append(f"of the files '{where}' {len(gaps)} numbers are missing, such as {gaps[0]}")
    return notes
