"""Data sets that are a tree of folders, one a class."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.resources import files as package_files
from pathlib import Path

import open_clip

from stages.common.errors import UserError
from stages.ingest.demo.species import SPECIES, SUPERORDINATE
from stages.ingest.listing import EXTENSIONS, Listing, Request, chosen_split, files_below, prefixed, readable

SHOWN = 3

IMAGENET_NAMES = {"n04008634": "projectile", "n04355933": "sunglass"}
"""Of the two pairs of classes to which open_clip gives one name, the one that WordNet calls otherwise."""


def read_folder(root: Path, split: str | None) -> Listing:
    """One sub-folder a class, images at any depth below it; `root/<split>` where a split is given.

    Raises:
        UserError: no sub-folders, or some without images.
    """
    top = root / split if split else root
    if not top.is_dir():
        raise UserError(f"no folder '{top}'; `split` names a sub-folder of the data set's root")
    folders = _class_folders(top)
    if not folders:
        raise UserError(f"no class folders in '{top}'; expected one sub-folder a class with its images")
    return Listing(_images(root, top, folders), [readable(name) for name in folders])


def _class_folders(top: Path) -> list[str]:
    """Names of the folders in `top`, sorted; hidden ones are somebody else's."""
    return sorted(entry.name for entry in top.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _images(root: Path, top: Path, folders: Sequence[str]) -> list[tuple[str, int]]:
    """(image_id, label) of the images in `folders`, whose places in the list are their labels.

    Raises:
        UserError: a folder without images.
    """
    images: list[tuple[str, int]] = []
    empty = []
    for label, name in enumerate(folders):
        found = files_below(top / name)
        images += prefixed(root, top / name, [(file, label) for file in found])
        if not found:
            empty.append(name)
    if empty:
        raise UserError(
            f"class folders without images in '{top}': {_some(empty)}; put images there or remove the folders "
            f"(formats: {' '.join(EXTENSIONS)})"
        )
    return images


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


def read_demo(root: Path, split: str | None) -> Listing:
    """The drawn birds: a folder data set with families as coarse labels."""
    listing = read_folder(root, split)
    family = {species.name: species.family for species in SPECIES}
    strangers = [name for name in listing.names if name not in family]
    if strangers:
        raise UserError(f"'{root}' holds folders that are no species of the demo: {', '.join(strangers)}; remove them")
    return replace(listing, superordinate=SUPERORDINATE, coarse=[[family[name]] for name in listing.names])


def named_folders(
    *places: str,
    names: dict[str, str] | None = None,
    leave: Sequence[str] = (),
    superordinate: str | None = None,
) -> Callable[[Request], Listing]:
    """A reader of one folder a class, in the root or in one of `places` below it, without splits.

    Args:
        names: names of the classes, where they are not those of the folders.
        leave: folders that are no classes.
    """

    def read(request: Request) -> Listing:
        chosen_split(request.split, ["all"])
        top = next((request.root / place for place in places if (request.root / place).is_dir()), request.root)
        folders = [name for name in _class_folders(top) if name not in leave]
        if not folders or (names and not set(folders) & set(names)):
            where = " or ".join(f"'{request.root / place}'" for place in places)
            raise UserError(f"no class folders in '{request.root}'{f' nor in {where}' if where else ''}")
        called = [(names or {}).get(name, readable(name)) for name in folders]
        return Listing(_images(request.root, top, folders), called, superordinate)

    return read


# ImageNet and its relatives: folders are WordNet ids, whose sorted order is the order of the 1000 classes.


def imagenet_ids(subset: str = "") -> list[str]:
    """WordNet ids of ImageNet's 1000 classes, or of the 200 of ImageNet-A ("_a") or -R ("_r"), in order of labels."""
    text = (package_files("timm") / "data" / "_info" / f"imagenet{subset}_synsets.txt").read_text(encoding="utf-8")
    return text.split()


def imagenet_names(ids: Sequence[str]) -> list[str]:
    """open_clip's names of the classes; each is another."""
    names = {**dict(zip(imagenet_ids(), open_clip.IMAGENET_CLASSNAMES, strict=True)), **IMAGENET_NAMES}
    return [names[wnid] for wnid in ids]


def imagenet_folders(
    subset: str = "", places: Sequence[str] = (), splits: Sequence[str] = ("all",), by_index: bool = False
) -> Callable[[Request], Listing]:
    """A reader of ImageNet's classes, one folder each, named by WordNet id or by the label's number.

    Args:
        subset: as of `imagenet_ids`.
        places: where the folders may be below the root, with `{split}`.
    """

    def read(request: Request) -> Listing:
        split = chosen_split(request.split, splits)
        tried = [request.root / place.format(split=split) for place in places]
        top = next((path for path in tried if path.is_dir()), None if splits[0] != "all" else request.root)
        if top is None:
            raise UserError(f"no folder {' or '.join(repr(str(path)) for path in tried)}")
        ids = imagenet_ids(subset)
        folders = [str(label) for label in range(len(ids))] if by_index else ids
        # A class that is not there would make the others easier to tell apart, and the figures better than they are.
        missing = [name for name in folders if not (top / name).is_dir()]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(ids)} class folders are missing in '{top}', such as "
                f"{', '.join(missing[:SHOWN])}; for a chosen subset use the reader imagenet-subset"
            )
        return Listing(_images(request.root, top, folders), imagenet_names(ids))

    return read


def read_imagenet_subset(request: Request) -> Listing:
    """Some of ImageNet's classes, as their folders say: ImageNet-100, Imagewoof; `root/<split>` where one is given.

    Raises:
        UserError: a folder that is no class of ImageNet.
    """
    listing = read_folder(request.root, request.split)
    known = set(imagenet_ids())
    strangers = [name for name in listing.names if name not in known]
    if strangers:
        raise UserError(f"folders that are no WordNet id of ImageNet's classes: {_some(strangers)}")
    return replace(listing, names=imagenet_names(listing.names))


# iNaturalist: the folders' names hold the taxonomy, and the annotations beside them what people call the species.

TAXONOMY = ("kingdom", "phylum", "class", "order", "family", "genus")


def read_inaturalist(request: Request) -> Listing:
    """iNaturalist 2021: `val/` or `train/` of `<number>_<kingdom>_..._<genus>_<epithet>/`.

    Names are scientific; coarse labels go from the genus up to the kingdom. With `val.json`, `train_mini.json` or
    `train.json` beside the folders, a species is rightly called by its common name as well, and its superordinate is
    its supercategory ("Birds"), as in FINER (arXiv 2402.16315).

    Raises:
        UserError: no such folder, or one that is not named so; annotations that cannot be read or lack a folder.
    """
    split = chosen_split(request.split, ["val", "train", "train_mini"])
    tried = [request.root / place for place in (split, f"2021_{'valid' if split == 'val' else split}")]
    top = next((path for path in tried if path.is_dir()), None)
    if top is None:
        raise UserError(f"no folder {' or '.join(repr(str(path)) for path in tried)}")
    folders = _class_folders(top)
    pieces = [name.split("_", 1 + len(TAXONOMY)) for name in folders]
    odd = [name for name, cut in zip(folders, pieces, strict=True) if len(cut) != 2 + len(TAXONOMY)]
    if odd or not folders:
        raise UserError(f"expected folders '<number>_<{'>_<'.join(TAXONOMY)}>_<epithet>' in '{top}': {_some(odd)}")
    names = [readable(f"{cut[-2]} {cut[-1]}") for cut in pieces]
    coarse = [cut[-2:0:-1] for cut in pieces]
    listing = Listing(_images(request.root, top, folders), names, "living being", coarse)
    annotations = next((request.root / file for file in ANNOTATIONS if (request.root / file).is_file()), None)
    if annotations is None:
        return listing
    categories = _categories(annotations, folders)
    fine = [[name, *filter(None, [category["common_name"]])] for name, category in zip(names, categories, strict=True)]
    return replace(listing, superordinate=[category["supercategory"] for category in categories], fine=fine)


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
            f"'{path}' has no category of the folders {_some(strangers)}; put the annotations there that belong to "
            "the images, or remove them to go without common names"
        )
    return [found[folder] for folder in folders]
