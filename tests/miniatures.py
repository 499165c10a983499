"""Miniatures of published data sets in their official layouts: a few classes, images of a few pixels."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat  # type: ignore[import-untyped]


def put(root: Path, *names: str) -> Path:
    """JPEG files below a folder, each of a colour of its own."""
    for name in names:
        colour = zlib.crc32(name.encode())
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (colour & 255, colour >> 8 & 255, colour >> 16 & 255)).save(root / name, "JPEG")
    return root


def write(root: Path, **texts: str) -> None:
    """Text files: `a__b` is `a/b.txt`."""
    for name, text in texts.items():
        path = root / f"{name.replace('__', '/')}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def rows(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


def cells(values: Sequence[Any]) -> Any:
    return np.array(values, dtype=object)


def make_cub(root: Path) -> None:
    """CUB-200-2011: two classes."""
    put(root, "images/001.Black_footed_Albatross/a.jpg", "images/002.Ovenbird/b.jpg", "images/002.Ovenbird/c.jpg")
    write(
        root,
        images="1 001.Black_footed_Albatross/a.jpg\n2 002.Ovenbird/b.jpg\n3 002.Ovenbird/c.jpg\n",
        image_class_labels="1 1\n2 2\n3 2\n",
        classes="1 001.Black_footed_Albatross\n2 002.Ovenbird\n",
        train_test_split="1 0\n2 1\n3 0\n",
    )


NABIRDS = {
    817: "Common Eider (Adult male)",
    860: "Common Eider (Female/juvenile)",
    295: "Ovenbird",
    313: "Black-bellied Whistling-Duck",
}


def make_nabirds(root: Path) -> None:
    """NABirds: four leaves of a tree, two of them of one species; of each class a test and a training image."""
    images = [(f"i-{label}-{number}", f"{label:04d}/{number}{label}.jpg") for label in NABIRDS for number in (0, 1)]
    put(root / "images", *(path for _, path in images))
    write(
        root,
        images=rows(*(f"{image} {path}" for image, path in images)),
        image_class_labels=rows(*(f"{image} {int(path[:4])}" for image, path in images)),
        train_test_split=rows(*(f"{image} {image[-1]}" for image, _ in images)),
        classes=rows(
            "0 Birds",
            "1 Ducks, Geese, and Swans",
            "5 Perching Birds",
            "23 Common Eider",
            *(f"{label} {name}" for label, name in NABIRDS.items()),
        ),
        hierarchy="1 0\n5 0\n23 1\n817 23\n860 23\n295 5\n313 1\n",
    )


DOGS = ("n02085620-Chihuahua", "n02086240-Shih-Tzu", "n02099267-flat-coated_retriever")
CURLY = "n02099429-curly-coated_retriever"


def make_dogs(root: Path) -> None:
    """Stanford Dogs: four breeds, of which the curly-coated retriever is to train on and the others to test on."""
    paths = [f"{breed}/{breed.split('-')[0]}_1.jpg" for breed in (*DOGS, CURLY)]
    put(root / "Images", *paths)
    for name, listed in {"file": paths, "train": paths[3:], "test": paths[:3]}.items():
        made = cells([[path] for path in listed])
        savemat(root / f"{name}_list.mat", {"file_list": made, "labels": [[1]] * len(listed)})


WORM, GRASS = (
    "00000_Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae_Lumbricus_terrestris",
    "00001_Plantae_Tracheophyta_Liliopsida_Poales_Poaceae_Poa_annua",
)


def make_inaturalist(root: Path) -> None:
    """iNaturalist 2021's validation images, without annotations: a worm and a grass."""
    put(root, f"val/{WORM}/a.jpg", f"val/{GRASS}/b.jpg")


def category(folder: str, supercategory: str, common_name: str | None) -> dict[str, Any]:
    return {"image_dir_name": folder, "supercategory": supercategory, "common_name": common_name, "name": "as above"}


def make_inaturalist_annotated(root: Path) -> None:
    """The same with `val.json`."""
    make_inaturalist(root)
    categories = [category(WORM, "Animalia", "Common Earthworm"), category(GRASS, "Plants", "Annual Meadow Grass")]
    (root / "val.json").write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))


CARS = ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012", "FIAT 500 Abarth 2012", "Audi 100 Wagon 1994")


def make_cars(root: Path) -> None:
    """Stanford Cars: four models, two of them with a test image and one with training images."""
    base = root / "stanford_cars"
    put(base, "cars_test/00001.jpg", "cars_test/00002.jpg", "cars_train/00001.jpg", "cars_train/00002.jpg")
    (base / "devkit").mkdir()
    savemat(base / "devkit/cars_meta.mat", {"class_names": cells([list(CARS)])})
    kind = [("class", "O"), ("fname", "O")]
    for path, listed in {
        "cars_test_annos_withlabels.mat": [(2, "00001.jpg"), (1, "00002.jpg")],
        "devkit/cars_train_annos.mat": [(3, "00001.jpg"), (3, "00002.jpg")],
    }.items():
        savemat(base / path, {"annotations": np.array([listed], dtype=kind)})


AIRCRAFT: Mapping[str, tuple[str, str]] = {
    "737-800": ("Boeing 737", "Boeing"),
    "CRJ-700": ("CRJ-700", "Canadair"),
    "CRJ-900": ("CRJ-700", "Canadair"),
    "MD-80": ("MD-80", "McDonnell Douglas"),
    "MD-87": ("MD-80", "McDonnell Douglas"),
}
"""Variant -> family, manufacturer; two families are the names of variants."""


def make_aircraft(root: Path) -> None:
    """FGVC-Aircraft: five variants with a test and a training image each."""
    base = root / "fgvc-aircraft-2013b/data"
    put(base / "images", *(f"{split}{number}.jpg" for split in (10, 20) for number in range(len(AIRCRAFT))))
    write(
        base,
        variants=rows(*AIRCRAFT),
        families=rows(*sorted({family for family, _ in AIRCRAFT.values()})),
        manufacturers=rows(*sorted({maker for _, maker in AIRCRAFT.values()})),
    )
    for split, names in {10: ("test",), 20: ("train", "val", "trainval")}.items():
        for name in names:
            for level, labels in {
                "variant": list(AIRCRAFT),
                "family": [family for family, _ in AIRCRAFT.values()],
                "manufacturer": [maker for _, maker in AIRCRAFT.values()],
            }.items():
                listed = [f"{split}{number} {label}" for number, label in enumerate(labels)]
                write(base, **{f"images_{level}_{name}": rows(*listed)})
