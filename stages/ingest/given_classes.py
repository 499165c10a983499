"""Classes that params.yaml gives to images without labels: a list, a text file, or those of another data set."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from stages.common import paths
from stages.common.artifacts import ClassesParameters
from stages.common.errors import UserError, nearest
from stages.common.labels import read_classes
from stages.common.locks import hold
from stages.common.names import spelling
from stages.common.params import Dataset, Params
from stages.ingest.classes import labelled_aliases, other_keys, template_texts
from stages.ingest.dataset import check_listing, find_reader, read_listing
from stages.ingest.datasets import READERS, Listing, Reader
from stages.ingest.folders import imagenet_ids, imagenet_names, named_by_imagenet
from stages.ingest.listing import read_lines
from stages.ingest.lists import CUB_NAMES

PUBLISHED = ("imagenet", "imagenet-a", "imagenet-r", "cub")
"""Readers whose names of classes are part of this project or of its dependencies."""


@dataclass(frozen=True)
class Classes:
    """The classes of a data set, and what `refine` needs to read their descriptions."""

    listing: Listing
    """With no images."""
    described: ClassesParameters = field(default_factory=ClassesParameters)
    notes: tuple[str, ...] = ()


def described(key: str, entry: Dataset, reader: Reader, listing: Listing) -> ClassesParameters:
    """The parameters of `classes.parquet`, for the classes that a reader finds.

    Raises:
        UserError: an alias of no class.
    """
    return ClassesParameters(
        reader=entry.reader,
        split=entry.split,
        templates=template_texts(entry.templates if entry.templates is not None else reader.templates),
        aliases=labelled_aliases(key, entry.aliases, listing.names),
        fallbacks={label: keys for label, keys in enumerate(listing.keys or []) if keys},
    )


def given_classes(params: Params, key: str, seen: tuple[str, ...] = ()) -> Classes:
    """The classes that the entry `key` of the reader `images` gives.

    Args:
        seen: the entries whose `classes` led to this one.

    Raises:
        UserError: no such file or data set, no class, or one that is listed twice.
    """
    entry = params.datasets[key]
    where = f"datasets.{key}.classes"
    if isinstance(entry.classes, str) and entry.classes in params.datasets:
        return _of_dataset(params, where, entry, (*seen, key))
    published = isinstance(entry.classes, str) and entry.classes in PUBLISHED
    notes: tuple[str, ...] = ()
    if published:
        names = _published(str(entry.classes))
    elif isinstance(entry.classes, str):
        names, notes = _of_file(params, where, entry)
    else:
        names = [name.strip() for name in entry.classes or []]
    _refuse_odd(where, names)
    listing = named_by_imagenet(Listing([], names, by_name=True))
    reader = READERS[str(entry.classes)] if published else READERS[entry.reader]
    listing = replace(listing, keys=other_keys(listing, listing.names, reader.keys))
    return Classes(listing, described(key, entry, reader, listing), (*listing.naming, *notes))


def _published(reader: str) -> list[str]:
    if reader == "cub":
        return read_lines(CUB_NAMES)
    return imagenet_names(imagenet_ids(reader.removeprefix("imagenet").replace("-", "_")))


def _of_file(params: Params, where: str, entry: Dataset) -> tuple[list[str], tuple[str, ...]]:
    """The lines of a text file in the root."""
    path = Path(entry.root) / str(entry.classes)
    if not path.is_file():
        known = [*params.datasets, *PUBLISHED]
        raise UserError(
            f"{where} '{entry.classes}' is no data set of params.yaml{nearest(str(entry.classes), known)}, and there "
            f"is no file '{path}'; give a list, a text file in the root with one class on each line, a key of "
            f"datasets, or one of {', '.join(PUBLISHED)}"
        )
    outside = Path(os.path.abspath(entry.root)) not in Path(os.path.abspath(path)).parents
    notes = (f"'{path}' is outside of the root, so DVC does not notice when it changes",) if outside else ()
    return read_lines(path), notes


def _refuse_odd(where: str, names: list[str]) -> None:
    if not names or not all(names):
        raise UserError(f"{where} has {'no' if not names else 'an empty'} name; write one name for each class")
    forms = Counter(map(spelling, names))
    twice = [name for name in names if forms[spelling(name)] > 1]
    if twice:
        listed = ", ".join(map(repr, dict.fromkeys(twice)))
        raise UserError(f"{where} lists a class more than once, in one or two spellings: {listed}; list each once")


def _of_dataset(params: Params, where: str, entry: Dataset, seen: tuple[str, ...]) -> Classes:
    """The classes of another data set, by its files, or by its table where the files are not here."""
    other = str(entry.classes)
    if other in seen:
        raise UserError(f"{where}: the classes of {' and '.join(seen)} name each other; give one of them a list")
    theirs = params.datasets[other]
    reader = find_reader(other, theirs)
    if theirs.classes is not None:
        found = given_classes(params, other, seen)
    elif Path(theirs.root).is_dir():
        hold("ingest", other, wait=True)  # it may have to unpack archives
        listing = read_listing(other, theirs, reader, download=False)
        check_listing(listing, theirs.names)
        found = Classes(
            replace(listing, images=[], root=None, by_name=False), described(other, theirs, reader, listing)
        )
    elif paths.classes(other).exists():
        found = _of_table(other)
    else:
        raise UserError(
            f"{where}: the images of '{other}' are not in '{theirs.root}', and {paths.classes(other)} is missing; put "
            "either there"
        )
    own = found.described
    if entry.templates is not None:
        own = own.model_copy(update={"templates": template_texts(entry.templates)})
    if entry.aliases:
        aliases = labelled_aliases(seen[-1], entry.aliases, found.listing.names)
        own = own.model_copy(update={"aliases": {**own.aliases, **aliases}})
    own = own.model_copy(update={"reader": entry.reader, "split": entry.split, "taken_from": other})
    note = f"classes are those of '{other}'; if they change, run `dvc repro -f ingest@{seen[-1]}`"
    return Classes(found.listing, own, (note,))


def _of_table(dataset: str) -> Classes:
    found = read_classes(dataset)
    columns = {name: found.table[name].to_pylist() for name in ("superordinate", "coarse", "fine")}
    above, coarse, fine = columns.values()
    listing = Listing(
        [],
        found.names,
        None if None in above else above,
        None if None in coarse else coarse,
        None if not any(fine) else [own or [name] for own, name in zip(fine, found.names, strict=True)],
    )
    return Classes(listing, found.parameters)
