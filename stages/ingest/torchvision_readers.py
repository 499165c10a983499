"""Data sets that torchvision knows: its lists of images and labels, its class names, its downloads."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torchvision.datasets as known
from scipy.io import loadmat  # type: ignore[import-untyped]

from stages.common.errors import UserError
from stages.ingest.coarse import car_body
from stages.ingest.listing import Listing, Request, chosen_split, look_up, prefixed, read_lines, readable, safe_id
from stages.ingest.mat import check_mat
from stages.ingest.places import home
from stages.ingest.walk import files_below, folders_in, refuse_links

NOT_MATLAB = (OSError, ValueError, TypeError, NotImplementedError, MemoryError, EOFError, zlib.error, struct.error)
"""What reading a file raises that is not one of MATLAB's."""


def fetch(name: str, **options: Any) -> Callable[[Path], None]:
    """A function that downloads a data set into a root folder.

    Raises:
        UserError: it cannot be fetched.
    """

    def download(root: Path) -> None:
        try:
            root.mkdir(parents=True, exist_ok=True)
            getattr(known, name)(root, download=True, **options)
        except (URLError, OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"torchvision's {name} cannot be downloaded into '{root}': {reason}") from None

    return download


def _open(name: str, root: Path, **options: Any) -> Any:
    """torchvision's data set; only its lists are read.

    Raises:
        UserError: files are missing or are not what torchvision expects.
    """
    try:
        return getattr(known, name)(root, **options)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).replace("You can use download=True to download it", "").split())
        raise UserError(f"torchvision's {name} cannot read '{root}': {reason}") from None


def _parent(root: Path, folder: str) -> Path:
    """Where torchvision looks for `folder`: the root, or the folder above if the root is that one itself.

    Raises:
        UserError: neither.
    """
    if (root / folder).is_dir():
        refuse_links(root, [f"{folder}/x"])
        return root
    # Not resolved: the root may be a link of this name.
    absolute = Path(os.path.abspath(root))
    if absolute.name == folder:
        return absolute.parent
    inside = absolute.parent.name == folder
    raise UserError(f"no folder '{folder}' in '{root}'{'; set root to the folder above' if inside else ''}")


def _below(root: Path, files: list[Any], labels: list[int]) -> list[tuple[str, int]]:
    """torchvision's paths as image_ids."""
    top = os.path.abspath(root)
    return [
        (Path(os.path.abspath(file)).relative_to(top).as_posix(), label)
        for file, label in zip(files, labels, strict=True)
    ]


def read_aircraft(request: Request) -> Listing:
    """FGVC-Aircraft (Maji et al., 2013): 100 variants; coarse is family and manufacturer.

    Variant and family are both right names, as in FINER (arXiv 2402.16315).

    Raises:
        UserError: files are missing.
    """
    split = chosen_split(request.split, ["test", "train", "val", "trainval"])
    root = _parent(request.root, "fgvc-aircraft-2013b")
    levels = ("variant", "family", "manufacturer")
    found = [_open("FGVCAircraft", root, split=split, annotation_level=level) for level in levels]
    variants = found[0]
    above: dict[int, list[str]] = {}
    # The same images at every level say which variant is of which family; any split has all variants.
    for variant, family, manufacturer in zip(*(level._labels for level in found), strict=True):
        above[variant] = [found[1].classes[family], found[2].classes[manufacturer]]
    images = _below(request.root, variants._image_files, variants._labels)
    coarse = [above.get(label, []) for label in range(len(variants.classes))]
    fine = [[variant, *families[:1]] for variant, families in zip(variants.classes, coarse, strict=True)]
    return Listing(images, variants.classes, "aircraft", coarse, fine)


def read_cars(request: Request) -> Listing:
    """Stanford Cars (Krause et al., 2013): make, model and year; coarse is the body style, one of FINER's seven.

    Raises:
        UserError: files are missing.
    """
    split = chosen_split(request.split, ["test", "train"])
    parent = _parent(request.root, "stanford_cars")
    for path in sorted((parent / "stanford_cars").rglob("*.mat")):
        try:
            check_mat(path)
        except NOT_MATLAB as error:
            raise UserError(f"'{path}' is no MATLAB file ({error}); fetch it again") from None
    cars = _open("StanfordCars", parent, split=split)
    images = _below(request.root, [file for file, _ in cars._samples], [label for _, label in cars._samples])
    # "/" would be a folder in a class's name: "Ram C/V Cargo Van Minivan 2012".
    names = [readable(name) for name in cars.classes]
    return Listing(images, names, "car", [car_body(name) for name in names])


EUROSAT = {
    "AnnualCrop": "annual crop land",
    "Forest": "forest",
    "HerbaceousVegetation": "herbaceous vegetation",
    "Highway": "highway or road",
    "Industrial": "industrial buildings",
    "Pasture": "pasture land",
    "PermanentCrop": "permanent crop land",
    "Residential": "residential buildings",
    "River": "river",
    "SeaLake": "sea or lake",
}


def read_sun397(request: Request) -> Listing:
    """SUN397 (Xiao et al., CVPR 2010): all images, or one of the ten official partitions (`test01`, `train01`, ...).

    Raises:
        UserError: files are missing.
    """
    parts = [f"{kind}{number:02d}" for number in range(1, 11) for kind in ("test", "train")]
    split = chosen_split(request.split, ["all", *parts])
    root = _parent(request.root, "SUN397")
    top = root / "SUN397"
    # "/a/abbey", "/c/church/indoor": the first part is a letter of the alphabet.
    classes = [line[3:] for line in read_lines(top / "ClassName.txt")]
    label_of = {name: label for label, name in enumerate(classes)}
    names = [readable(name.replace("/", " ")) for name in classes]
    if split == "all":
        found = [path for path in files_below(top) if Path(path).name.startswith("sun_")]
        labels = [look_up(label_of, "/".join(path.split("/")[1:-1]), top, "class") for path in found]
        return Listing(_below(request.root, [top / path for path in found], labels), names, "scene")
    file = f"{'Testing' if split.startswith('test') else 'Training'}_{split[-2:]}.txt"
    base = home(request.root, "SUN397/Partitions", "SUN397", "Partitions", marker=file)
    paths = [safe_id(line.lstrip("/"), base / file) for line in read_lines(base / file)]
    labels = [look_up(label_of, "/".join(path.split("/")[1:-1]), base / file, "class") for path in paths]
    return Listing(_below(request.root, [root / "SUN397" / path for path in paths], labels), names, "scene")


# Lists that are MATLAB files.


def _mat(path: Path, *wanted: str) -> list[list[Any]]:
    """The columns of a MATLAB file, flat.

    Raises:
        UserError: no such file, or without these columns.
    """
    try:
        check_mat(path)
        content = loadmat(path, squeeze_me=True)
        return [np.atleast_1d(content[name]).reshape(-1).tolist() for name in wanted]
    except FileNotFoundError:
        raise UserError(f"no '{path}'") from None
    except (*NOT_MATLAB, KeyError, AttributeError) as error:
        raise UserError(f"'{path}' is no MATLAB file with {' and '.join(wanted)} ({error})") from None


def read_flowers(request: Request) -> Listing:
    """Flowers102 (Nilsback & Zisserman, 2008): `jpg/`, `imagelabels.mat` and `setid.mat`; torchvision's names.

    Raises:
        UserError: files are missing or do not agree.
    """
    keys = {"test": "tstid", "train": "trnid", "val": "valid"}
    split = chosen_split(request.split, list(keys))
    base = home(request.root, "flowers-102", marker="setid.mat")
    (labels,) = _mat(base / "imagelabels.mat", "labels")
    (numbers,) = _mat(base / "setid.mat", keys[split])
    names = known.Flowers102.classes
    if not all(1 <= number <= len(labels) and 1 <= labels[number - 1] <= len(names) for number in numbers):
        raise UserError(f"'{base / 'setid.mat'}' and imagelabels.mat do not belong together")
    files = [(f"image_{number:05d}.jpg", int(labels[number - 1]) - 1) for number in numbers]
    return Listing(prefixed(request.root, base / "jpg", files), list(names), "flower")


def read_dogs(request: Request) -> Listing:
    """Stanford Dogs (Khosla et al., 2011): `Images/n02085620-Chihuahua/` and `{test,train,file}_list.mat`.

    Raises:
        UserError: files are missing.
    """
    lists = {"test": "test_list.mat", "train": "train_list.mat", "all": "file_list.mat"}
    split = chosen_split(request.split, list(lists))
    top = home(request.root, marker="Images")
    base, folder = home(top, "lists", marker=lists[split]), top / "Images"
    breeds = folders_in(folder)
    label_of = {name: label for label, name in enumerate(breeds)}
    path = base / lists[split]
    (paths,) = _mat(path, "file_list")
    files = [(safe_id(name, path), look_up(label_of, name.split("/")[0], path, "breed")) for name in paths]
    names = [readable(name.split("-", 1)[-1]) for name in breeds]
    return Listing(prefixed(request.root, folder, files), names, "dog")
