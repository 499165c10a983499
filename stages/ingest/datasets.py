"""The table of data sets: where each kind keeps its images, how its classes are named, which templates it uses.

A new kind is a function from a root folder to a `Listing` and one line in `READERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torchvision.datasets import folder as image_folder

from stages.common.errors import UserError
from stages.ingest.demo.species import SPECIES, SUPERORDINATE


@dataclass(frozen=True)
class Listing:
    """What a reader finds: images with their labels, and the classes' names as a person would write them."""

    images: list[tuple[str, int]]
    """(image_id, label); an image_id is a POSIX path relative to the root."""
    names: list[str]
    superordinate: str | None = None
    coarse: list[list[str]] | None = None


@dataclass(frozen=True)
class Reader:
    """One kind of data set."""

    read: Callable[[Path, str | None], Listing]
    layout: str
    """What is expected under the root, for the message when it is not there."""
    templates: str | list[str] = "imagenet7"
    """Templates of `clip-e`: one of open_clip's sets, or the data set's own."""


def read_folder(root: Path, split: str | None) -> Listing:
    """One sub-folder a class, images at any depth below it; `root/<split>` where a split is given.

    Raises:
        UserError: no sub-folders, or some without images.
    """
    top = root / split if split else root
    if not top.is_dir():
        raise UserError(f"no folder '{top}'; `split` names a sub-folder of the data set's root")
    try:
        folders, label_of = image_folder.find_classes(top)
    except FileNotFoundError:
        raise UserError(f"no class folders in '{top}'; expected one sub-folder a class with its images") from None
    samples = image_folder.make_dataset(top, label_of, image_folder.IMG_EXTENSIONS, allow_empty=True)
    filled = {label for _, label in samples}
    empty = [name for name, label in label_of.items() if label not in filled]
    if empty:
        raise UserError(
            f"class folders without images in '{top}': {', '.join(empty)}; put images there or remove the folders "
            f"(formats: {' '.join(image_folder.IMG_EXTENSIONS)})"
        )
    images = [(Path(path).relative_to(root).as_posix(), label) for path, label in samples]
    return Listing(images, [name.replace("_", " ") for name in folders])


def read_demo(root: Path, split: str | None) -> Listing:
    """The drawn birds: a folder data set with families as coarse labels."""
    listing = read_folder(root, split)
    family = {species.name: species.family for species in SPECIES}
    strangers = [name for name in listing.names if name not in family]
    if strangers:
        raise UserError(f"'{root}' holds folders that are no species of the demo: {', '.join(strangers)}")
    return replace(listing, superordinate=SUPERORDINATE, coarse=[[family[name]] for name in listing.names])


def read_oxford_pets(root: Path, split: str | None) -> Listing:
    """Oxford-IIIT Pet (Parkhi et al., CVPR 2012): `images/` and `annotations/{test,trainval,list}.txt`.

    A line of a list is `<image name> <class id> <species: 1 cat, 2 dog> <breed id>`. Classes are those of all lists,
    so that a split without images of a class still scores against it; names keep the files' spelling, in which cats
    are capitalised and dogs are not.

    Raises:
        UserError: a list or an image that it names is missing, or a line is malformed.
    """
    base = root / "oxford-iiit-pet" if (root / "oxford-iiit-pet").is_dir() else root
    lists = {"test": "test.txt", "trainval": "trainval.txt", "all": "list.txt"}
    chosen = split or "test"
    if chosen not in lists:
        raise UserError(f"oxford-pets has no split '{chosen}'; there are: {', '.join(lists)}")
    rows = {name: _pet_rows(base / "annotations" / file, name == chosen) for name, file in lists.items()}
    species_of = {row[1]: (row[0].rsplit("_", 1)[0], row[2]) for name in rows for row in rows[name]}
    ids = sorted(species_of)
    names = [species_of[class_id][0].replace("_", " ") for class_id in ids]
    coarse = [["cat" if species_of[class_id][1] == 1 else "dog"] for class_id in ids]
    prefix = (base / "images").relative_to(root).as_posix()
    images = [(f"{prefix}/{stem}.jpg", ids.index(class_id)) for stem, class_id, _ in rows[chosen]]
    return Listing(images, names, superordinate="pet", coarse=coarse)


def _pet_rows(path: Path, needed: bool) -> list[tuple[str, int, int]]:
    """(image name, class id, species) of each line of an annotation list."""
    if not path.is_file():
        if needed:
            raise UserError(f"no '{path}'; expected Oxford-IIIT Pet's folders images/ and annotations/ in the root")
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split()
        if len(fields) != 4 or not all(field.isdigit() for field in fields[1:]):
            raise UserError(f"{path}, line {number}: expected '<image> <class id> <species> <breed id>', not '{line}'")
        rows.append((fields[0], int(fields[1]), int(fields[2])))
    return rows


READERS: dict[str, Reader] = {
    "demo": Reader(read_demo, "the drawn birds; `dvc repro draw` makes them"),
    "folder": Reader(read_folder, "one sub-folder a class with its images"),
    "oxford-pets": Reader(
        read_oxford_pets,
        "the folders images/ and annotations/ of Oxford-IIIT Pet (robots.ox.ac.uk/~vgg/data/pets)",
        templates=["a photo of a {name}, a type of pet."],
    ),
}
