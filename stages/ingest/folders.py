"""Data sets that are a tree of folders, one a class."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.resources import files as package_files
from pathlib import Path

import open_clip

from stages.common.errors import UserError
from stages.ingest import published
from stages.ingest.labels import class_order
from stages.ingest.listing import Listing, Request, chosen_split, prefixed, readable
from stages.ingest.places import SPLITS, bases, find_split, is_split, only
from stages.ingest.walk import (
    EXTENSIONS,
    LeftOut,
    files_below,
    folders_in,
    foreign,
    foreign_images,
    is_image,
    refuse_links,
    shown,
    some,
)

SHOWN = 3

IMAGENET_NAMES = {"n04008634": "projectile", "n04355933": "sunglass"}
"""Two pairs of classes share a name in open_clip; these are the ones that WordNet names differently."""


def read_folder(root: Path, split: str | None) -> Listing:
    """One sub-folder for each class, with images at any depth; in `root/<split>` if a split is given.

    Classes are those of all splits.

    Raises:
        UserError: no sub-folders, some without images, or only those of splits where no split is given.
    """
    top = split_folder(root, split)
    if not split:
        _refuse_splits(root)
    return _read_folders(root, top)


def _refuse_splits(root: Path) -> None:
    """Refuse a root whose folders are all named like splits and hold folders instead of images.

    Raises:
        UserError: as above.
    """
    folders = folders_in(root)
    if folders and all(name.casefold() in SPLITS and _holds_folders(root / name) for name in folders):
        raise UserError(f"the folders in '{root}' are splits and no classes; set `split` to one of: {some(folders)}")


def _holds_folders(folder: Path) -> bool:
    return bool(folders_in(folder)) and not any(map(is_image, os.listdir(folder)))


def split_folder(root: Path, split: str | None) -> Path:
    """`root/<split>`, or the root.

    Raises:
        UserError: it is not there.
    """
    top = root / split if split else root
    if not top.is_dir():
        here = "; the root has this name itself: leave `split` out" if split and root.absolute().name == split else ""
        there = f"; there are: {some(folders_in(root))}" if folders_in(root) and not here else ""
        raise UserError(f"no folder '{top}'; `split` names a sub-folder of the data set's root{here}{there}")
    return top


def _read_folders(root: Path, top: Path) -> Listing:
    """As `read_folder`, of the class folders in `top`, with the folders' names."""
    present, folders = folders_in(top), class_order(classes_of_all_splits(root, top))
    if not present:
        raise UserError(f"no class folders in '{top}'; expected one sub-folder a class with its images")
    images, notes = _images(root, top, folders, present)
    names = [readable(name) for name in folders]
    return Listing(images, names, by_name=True, called=folders, notes=tuple(notes))


def classes_of_all_splits(root: Path, top: Path) -> set[str]:
    """The class folders in `top`, and if it is the folder of a split, those of the other splits."""
    classes = set(folders_in(top))
    if top == root:
        return classes
    found = set(classes)
    for other in bases(top.parent)[1:]:
        inner = set(folders_in(other)) if other != top else set()
        if is_split(other.name, inner, classes):
            refuse_links(root, [(other / folder / "x").relative_to(root).as_posix() for folder in inner])
            found |= {folder for folder in inner if folder in classes or files_below(other / folder)}
    return found


def _images(
    root: Path, top: Path, folders: Sequence[str], present: Sequence[str] | None = None
) -> tuple[list[tuple[str, int]], list[str]]:
    """(image_id, label) of the images in `folders`, whose places in the list are their labels, and notes.

    Args:
        present: the folders that exist, if not all.

    Raises:
        UserError: a folder without images.
    """
    images: list[tuple[str, int]] = []
    left_out = LeftOut()
    empty, notes = [], []
    absent = set(folders) - set(present) if present is not None else set()
    if absent:
        notes.append(f"{len(absent)} of {len(folders)} classes have no images in '{top}': {some(sorted(absent))}")
    for label, name in enumerate(folders):
        if name in absent:
            continue
        found = files_below(top / name, left_out)
        images += prefixed(root, top / name, [(file, label) for file in found])
        if not found:
            empty.append(name)
    if empty:
        raise UserError(
            f"class folders without images in '{top}': {some(empty)}; put images there or remove the folders "
            f"(formats: {' '.join(EXTENSIONS)})"
        )
    loose = sorted(entry.name for entry in top.iterdir() if is_image(entry.name) and not foreign(entry.name))
    loose = [name for name in loose if (top / name).is_file()]
    if loose:
        notes.append(
            f"{len(loose)} images in '{top}' are in no class folder and are not read, such as '{shown(loose[0])}'"
        )
    for entry in top.iterdir():
        left_out.foreign += foreign_images(entry) if foreign(entry.name) and entry.is_dir() else []
    return images, [*notes, *left_out.notes(root)]


def read_demo(root: Path, split: str | None) -> Listing:
    """The drawn birds: a folder data set with families, of `families.csv`, as coarse labels."""
    listing = read_folder(root, split)
    table = root / "families.csv"
    if not table.is_file():
        raise UserError(f"{table} is missing; draw the birds with `dvc repro draw`")
    with table.open(encoding="utf-8", newline="") as file:
        species = {row["name"]: row for row in csv.DictReader(file)}
    strangers = [name for name in listing.names if name not in species]
    if strangers:
        raise UserError(f"'{root}' holds folders that are no species of the demo: {', '.join(strangers)}; remove them")
    return replace(
        listing,
        superordinate=species[listing.names[0]]["superordinate"],
        coarse=[[species[name]["coarse"]] for name in listing.names],
    )


def named_folders(
    *places: str,
    names: dict[str, str] | None = None,
    leave: Sequence[str] = (),
    superordinate: str | None = None,
) -> Callable[[Request], Listing]:
    """A reader of one folder a class, in the root or in one of `places` below it, without splits.

    Args:
        names: names of the classes, if they differ from the folders.
        leave: folders that are not classes.
    """

    def read(request: Request) -> Listing:
        chosen_split(request.split, ["all"])
        top = _named_top(request.root, places, names or {})
        folders = [name for name in folders_in(top) if name not in leave] if top else []
        if top is None or not folders:
            where = " or ".join(f"'{request.root / place}'" for place in places)
            raise UserError(f"no class folders in '{request.root}'{f' nor in {where}' if where else ''}")
        called = [(names or {}).get(name, readable(name)) for name in folders]
        images, notes = _images(request.root, top, folders)
        return Listing(images, called, superordinate, called=folders, notes=tuple(notes))

    return read


def _named_top(root: Path, places: Sequence[str], known: dict[str, str]) -> Path | None:
    """The folder of class folders: one of `places` in the root or in a folder there, or one with a known class.

    Raises:
        UserError: there are several.
    """

    def has_classes(folder: Path) -> bool:
        return not known or bool(set(folders_in(folder)) & set(known))

    for base in bases(root)[:1], bases(root)[1:]:
        inner = [next((one / place for place in places if (one / place).is_dir()), None) for one in base]
        found = [place for place in inner if place is not None and has_classes(place)]
        top = only(found, root) or only([one for one in base if known and has_classes(one)], root)
        if top is not None:
            return top
    return None


# ImageNet and its relatives: folders are WordNet ids, whose sorted order is the order of the 1000 classes.


def imagenet_ids(subset: str = "") -> list[str]:
    """WordNet ids of ImageNet's 1000 classes, or of the 200 of ImageNet-A ("_a") or -R ("_r"), in order of labels."""
    text = (package_files("timm") / "data" / "_info" / f"imagenet{subset}_synsets.txt").read_text(encoding="utf-8")
    return text.split()


def imagenet_names(ids: Sequence[str]) -> list[str]:
    """open_clip's names of the classes; each is another."""
    names = {**dict(zip(imagenet_ids(), open_clip.IMAGENET_CLASSNAMES, strict=True)), **IMAGENET_NAMES}
    return [names[wnid] for wnid in ids]


def named_by_imagenet(listing: Listing) -> Listing:
    """Classes named by WordNet ids of ImageNet get ImageNet's names; others keep theirs."""
    found = listing.called or listing.names
    if not any(re.fullmatch(r"n\d{8}", name) for name in listing.names):
        return listing
    known = dict(zip(imagenet_ids(), imagenet_names(imagenet_ids()), strict=True))
    rest = [name for name in found if name not in known]
    note = f"{len(found) - len(rest)} of {len(found)} classes are WordNet ids of ImageNet's and get ImageNet's names"
    if rest:
        note += f"; the others keep theirs: {some(rest)}"
    names = [known.get(key, name) for key, name in zip(found, listing.names, strict=True)]
    keys = [list(published.IMAGENET.get(name, ())) for name in names]
    return replace(listing, names=names, called=found, keys=keys, naming=(note,))


def imagenet_folders(
    subset: str = "", places: Sequence[str] = (), splits: Sequence[str] = ("all",), by_index: bool = False
) -> Callable[[Request], Listing]:
    """A reader of ImageNet's classes, one folder each, named by WordNet id or by the label's number.

    Args:
        subset: as of `imagenet_ids`.
        places: where the folders may be below the root, with `{split}`.
    """

    def read(request: Request) -> Listing:
        ids = imagenet_ids(subset)
        folders = [str(label) for label in range(len(ids))] if by_index else ids
        top, _ = find_split(request, splits, places, lambda path: not set(folders).isdisjoint(folders_in(path)))
        # A class that is not there would make the others easier to tell apart, and the figures better than they are.
        missing = [name for name in folders if not (top / name).is_dir()]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(ids)} class folders are missing in '{top}', such as "
                f"{', '.join(missing[:SHOWN])}; for a chosen subset use the reader imagenet-subset"
            )
        images, notes = _images(request.root, top, folders)
        return Listing(images, imagenet_names(ids), called=folders, notes=tuple(notes))

    return read


def read_imagenet_subset(request: Request) -> Listing:
    """A subset of ImageNet's classes, given by the folders: ImageNet-100, Imagewoof; of a split if one is given.

    Raises:
        UserError: a folder that is not a class of ImageNet.
    """
    known = set(imagenet_ids())

    def has_classes(folder: Path) -> bool:
        return not known.isdisjoint(folders_in(folder))

    top = request.root
    if request.split:
        top, _ = find_split(request, [request.split, "train", "val", "test"], ["{split}"], has_classes)
    elif not has_classes(top):
        top = only([*filter(has_classes, bases(top))], top) or top
    listing = _read_folders(request.root, top)
    folders = listing.called or []
    strangers = [name for name in folders if name not in known]
    if strangers:
        raise UserError(f"folders that are no WordNet id of ImageNet's classes: {some(strangers)}")
    return replace(listing, names=imagenet_names(folders), by_name=False)


# iNaturalist: the folders' names hold the taxonomy, and the annotations hold the common names.

TAXONOMY = ("kingdom", "phylum", "class", "order", "family", "genus")


def read_inaturalist(request: Request) -> Listing:
    """iNaturalist 2021: `val/` or `train/` of `<number>_<kingdom>_..._<genus>_<epithet>/`.

    Names are scientific; coarse labels go from the genus up to the kingdom. With `val.json`, `train_mini.json` or
    `train.json` beside the folders, the common name is right as well,
    and the superordinate is the supercategory ("Birds"), as in FINER (arXiv 2402.16315).

    Raises:
        UserError: no such folder, or one that is not named so; annotations that cannot be read or lack a folder.
    """
    places = ["{split}", "2021_valid" if request.split in (None, "val") else "2021_{split}"]
    top, _ = find_split(request, ["val", "train", "train_mini"], places, _holds_species)
    present, folders = folders_in(top), sorted(classes_of_all_splits(request.root, top))
    pieces = [name.split("_", 1 + len(TAXONOMY)) for name in folders]
    odd = [name for name, cut in zip(folders, pieces, strict=True) if len(cut) != 2 + len(TAXONOMY)]
    if odd or not folders:
        raise UserError(f"expected folders '<number>_<{'>_<'.join(TAXONOMY)}>_<epithet>' in '{top}': {some(odd)}")
    names = [readable(f"{cut[-2]} {cut[-1]}") for cut in pieces]
    coarse = [cut[-2:0:-1] for cut in pieces]
    images, notes = _images(request.root, top, folders, present)
    base = request.root if top == request.root else top.parent
    annotations = next((base / file for file in ANNOTATIONS if (base / file).is_file()), None)
    if annotations is None:
        above = next((top.parent / file for file in ANNOTATIONS if (top.parent / file).is_file()), None)
        if above is not None:
            notes.append(f"'{above}' is not below the root and so is not read; set root to the folder above for it")
        return Listing(images, names, "living being", coarse, notes=tuple(notes))
    listing = Listing(images, names, "living being", coarse, notes=tuple(notes))
    categories = _categories(annotations, folders)
    fine = [[name, *filter(None, [category["common_name"]])] for name, category in zip(names, categories, strict=True)]
    return replace(listing, superordinate=[category["supercategory"] for category in categories], fine=fine)


def _holds_species(folder: Path) -> bool:
    return any(name.count("_") > len(TAXONOMY) for name in folders_in(folder))


ANNOTATIONS = ("val.json", "train_mini.json", "train.json")
"""Each has all categories; the smallest first, for that of the training images is more than a gigabyte."""


def _categories(path: Path, folders: Sequence[str]) -> list[dict[str, str]]:
    """`supercategory` and `common_name` (may be empty) of each folder's species.

    Raises:
        UserError: not iNaturalist's annotations, or without one of the folders.
    """
    try:
        found = {
            str(category["image_dir_name"]): {
                "supercategory": str(category["supercategory"]),
                "common_name": str(category.get("common_name") or "").strip(),
            }
            for category in json.loads(path.read_text(encoding="utf-8"))["categories"]
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"'{path}' is not iNaturalist's annotations, with `categories` of image_dir_name, common_name and "
            f"supercategory ({type(error).__name__}: {error}); fetch it again, or remove it to go without common names"
        ) from None
    strangers = [folder for folder in folders if folder not in found]
    if strangers:
        raise UserError(
            f"'{path}' has no category of the folders {some(strangers)}; put the annotations there that belong to "
            "the images, or remove them to go without common names"
        )
    return [found[folder] for folder in folders]
