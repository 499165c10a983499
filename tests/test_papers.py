"""The papers' data sets in miniature, in their official layouts, with description files under the published keys.

Each runs from ingest to report, all of them in one project. Sentences are made up; the keys are those of CuPL, AttrVR,
CLIP-D and WaffleCLIP where they differ from the names that the readers give.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from conftest import ROOT, Call, Project, make_tiny_model, small_params
from miniatures import CARS, make_aircraft, make_cars, make_cub, put, rows, write
from scipy.io import savemat  # type: ignore[import-untyped]

from stages.common.artifacts import BOXES, PREDICTIONS
from stages.common.tables import read_meta
from stages.ingest.folders import imagenet_ids, imagenet_names

Keys = Mapping[str, str]
"""Class name -> its key in a description file; a class that is not there has its own name for a key."""


def make_imagenet(root: Path) -> None:
    ids = dict(zip(imagenet_names(imagenet_ids()), imagenet_ids(), strict=True))
    put(root, *(f"{ids[name]}/{ids[name]}_1.JPEG" for name in ("missile", "projectile", "newt", "tights", "tench")))


def make_pets(root: Path) -> None:
    put(root / "images", "Abyssinian_1.jpg", "american_bulldog_2.jpg")
    write(root / "annotations", test="Abyssinian_1 1 1 1\namerican_bulldog_2 2 2 1\n")


def make_flowers(root: Path) -> None:
    put(root / "flowers-102/jpg", *(f"image_0000{number}.jpg" for number in (1, 2, 3)))
    savemat(root / "flowers-102/imagelabels.mat", {"labels": [[1, 6, 78]]})
    savemat(root / "flowers-102/setid.mat", {"trnid": [[1]], "valid": [[1]], "tstid": [[1, 2, 3]]})


def make_food(root: Path) -> None:
    put(root / "food-101/images", "apple_pie/1.jpg", "donuts/2.jpg")
    write(root / "food-101/meta", test="apple_pie/1\ndonuts/2\n", train="donuts/2\n")


def make_caltech(root: Path) -> None:
    folders = ("Faces", "Faces_easy", "Leopards", "car_side", "yin_yang", "BACKGROUND_Google")
    put(root / "caltech101/101_ObjectCategories", *(f"{folder}/image_0001.jpg" for folder in folders))


def make_dtd(root: Path) -> None:
    put(root / "dtd/images", "banded/banded_1.jpg", "polka-dotted/polka-dotted_2.jpg")
    write(root / "dtd/labels", test1="banded/banded_1.jpg\npolka-dotted/polka-dotted_2.jpg\n")


def make_eurosat(root: Path) -> None:
    put(root / "2750", *(f"{folder}/{folder}_1.jpg" for folder in ("Forest", "HerbaceousVegetation", "SeaLake")))


def make_places(root: Path) -> None:
    categories = ("/a/airport_terminal", "/a/arena/hockey", "/a/arena/rodeo", "/u/underwater/ocean_deep")
    put(root / "val_256", *(f"Places365_val_0000000{label}.jpg" for label in range(4)))
    write(
        root,
        categories_places365=rows(*(f"{category} {label}" for label, category in enumerate(categories))),
        places365_val=rows(*(f"Places365_val_0000000{label}.jpg {label}" for label in range(4))),
    )


def make_sun(root: Path) -> None:
    put(root / "SUN397", "a/abbey/sun_a.jpg", "a/apartment_building/outdoor/sun_b.jpg", "c/church/indoor/sun_c.jpg")
    write(root / "SUN397", ClassName="/a/abbey\n/a/apartment_building/outdoor\n/c/church/indoor\n")


def make_ucf(root: Path) -> None:
    videos = {"Apply_Eye_Makeup": "ApplyEyeMakeup/v_ApplyEyeMakeup_1", "Handstand_Pushups": "HandstandPushups/v_H_1"}
    put(root / "UCF-101-midframes", *(f"{folder}/{Path(video).name}.jpg" for folder, video in videos.items()))
    write(
        root / "ucfTrainTestlist",
        classInd="1 ApplyEyeMakeup\n2 HandstandPushups\n",
        testlist01=rows(*(f"{video}.avi" for video in videos.values())),
    )


@dataclass(frozen=True)
class Paper:
    """One data set: its reader, what makes it, and the keys of its description files."""

    reader: str
    make: Callable[[Path], None]
    names: tuple[str, ...]
    """Of the classes, by label."""
    templates: int
    cupl: Keys = field(default_factory=dict)
    attrvr: Keys | None = None
    """None where AttrVR published no file."""
    clip_d: Keys = field(default_factory=dict)
    split: str | None = None
    reachable: float | None = None
    """Top-1 of `cupl` that is at most reachable, where classes share a key."""


FACES = {"off-center face": "face", "centered face": "face"}
PAPERS = {
    "imagenet": Paper(
        "imagenet-subset",
        make_imagenet,
        ("tench", "newt", "tights", "missile", "projectile"),
        80,
        cupl={"projectile": "missile"},
        attrvr={"projectile": "missile"},
        clip_d={"newt": "eft", "tights": "maillot"},
        reachable=80.0,
    ),
    "cub": Paper("cub", make_cub, ("Black-footed Albatross", "Ovenbird"), 1, clip_d={"Ovenbird": "ovenbird"}),
    "oxford_pets": Paper(
        "oxford-pets", make_pets, ("Abyssinian", "american bulldog"), 1, attrvr={"american bulldog": "American_Bulldog"}
    ),
    "dtd": Paper("dtd", make_dtd, ("banded", "polka-dotted"), 8, cupl={"polka-dotted": "polka dotted"}, attrvr={}),
    "food101": Paper("food101", make_food, ("apple pie", "donuts"), 1, cupl={"apple pie": "Apple_Pie"}, attrvr={}),
    "places365": Paper(
        "places365",
        make_places,
        ("airport terminal", "arena hockey", "arena rodeo", "underwater ocean deep"),
        2,
        cupl={"arena hockey": "arena", "arena rodeo": "arena", "underwater ocean deep": "underwater"},
        clip_d={"arena hockey": "arena", "arena rodeo": "arena", "underwater ocean deep": "underwater"},
        reachable=75.0,
    ),
    "eurosat": Paper(
        "eurosat",
        make_eurosat,
        ("forest", "herbaceous vegetation", "sea or lake"),
        3,
        cupl={"herbaceous vegetation": "brushland or shrubland", "sea or lake": "lake or sea"},
        attrvr={"herbaceous vegetation": "Herbaceous Vegetation Land"},
        clip_d={"herbaceous vegetation": "brushland or shrubland", "sea or lake": "lake or sea"},
    ),
    "cars": Paper(
        "stanford-cars",
        make_cars,
        tuple(CARS),
        1,
        attrvr={name: f"{name[-4:]} {name[:-5]}" for name in CARS},
    ),
    "aircraft": Paper(
        "aircraft",
        make_aircraft,
        ("737-800", "CRJ-700", "CRJ-900", "MD-80", "MD-87"),
        1,
        attrvr={},
        clip_d={"737-800": "Boeing 737", "CRJ-900": "CRJ-700", "MD-87": "MD-80"},
    ),
    "flowers": Paper(
        "flowers102",
        make_flowers,
        (),  # torchvision's 102
        1,
        cupl={"pink-yellow dahlia?": "pink and yellow dahlia", "ball moss": "air plant"},
        attrvr={},
        clip_d={"lotus": "lotus lotus"},
    ),
    "sun397": Paper(
        "sun397",
        make_sun,
        ("abbey", "apartment building outdoor", "church indoor"),
        1,
        cupl={"apartment building outdoor": "apartment building (outdoor)", "church indoor": "church (indoor)"},
        attrvr={"apartment building outdoor": "outdoor apartment_building", "church indoor": "indoor church"},
    ),
    "caltech101": Paper(
        "caltech101",
        make_caltech,
        ("off-center face", "centered face", "leopard", "car side", "yin yang"),
        7,
        cupl={"car side": "side of a car", "yin yang": "yin and yang symbol"},
        attrvr=FACES,
    ),
    "ucf101": Paper(
        "ucf101",
        make_ucf,
        ("apply eye makeup", "handstand pushups"),
        1,
        cupl={"handstand pushups": "Hand Stand Pushups"},
        attrvr={"handstand pushups": "Handstand_Pushups"},
    ),
}
PRESETS: dict[str, Any] = yaml.safe_load((ROOT / "docs/presets.yaml").read_text(encoding="utf-8"))["datasets"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("papers") / "project"
    folder.mkdir()
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    made = Project(folder)
    make_tiny_model(folder / "tiny-model")

    def all_papers(params: dict[str, Any]) -> None:
        small_params(params)
        params["sources"] = {"cupl": "sentences", "attrvr_des": "sentences", "clip-d": "descriptors"}
        params["report"].update(pictures=0)
        params["datasets"] = {}
        for key, paper in PAPERS.items():
            entry = {**PRESETS.get(key, {}), "reader": paper.reader, "root": f"roots/{key}"}
            entry["sources"] = [*(["attrvr_des"] if paper.attrvr is not None else []), "cupl", "clip-d"]
            params["datasets"][key] = entry

    made.edit(all_papers)
    return made


def describe(folder: Path, key: str, source: str, names: list[str], keys: Keys) -> None:
    """A file under the published keys; each sentence says under which."""
    found = {
        keys.get(name, name): [f"a {keys.get(name, name)} as {source} sees it", f"{source} number two"]
        for name in names
    }
    if source == "clip-d" and "donuts" in found:
        found["donuts"] = []  # as published
    path = folder / f"descriptions/{key}/{source}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))


@pytest.mark.parametrize("key", PAPERS)
def test_a_papers_data_set_from_ingest_to_report(
    key: str, project: Project, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.folder)
    paper = PAPERS[key]
    Path(f"roots/{key}").mkdir(parents=True)
    paper.make(Path(f"roots/{key}"))
    assert call("ingest", "--dataset", key).err == ""
    names = pl.read_parquet(f"data/{key}/classes.parquet")["name"].to_list()
    assert tuple(names) == (paper.names or tuple(names))
    for source, keys in {"cupl": paper.cupl, "attrvr_des": paper.attrvr, "clip-d": paper.clip_d}.items():
        if keys is not None:
            describe(project.folder, key, source, names, keys)

    printed = ""
    for stage in ("describe", "crop"):
        assert call(stage, "--dataset", key).code == 0
    for stage in ("refine", "embed", "score", "report"):
        done = call(stage, "--dataset", key, "--model", "tiny")
        assert (done.code, done.err) == (0, "")
        printed += done.out

    texts = pl.read_parquet(f"data/{key}/tiny/texts.parquet")
    assert texts.filter(pl.col("source") == "template").height == paper.templates * len(names)
    for source, keys in {"cupl": paper.cupl, "attrvr_des": paper.attrvr}.items():
        for label, name in enumerate(names if keys is not None else []):
            own = texts.filter((pl.col("source") == source) & (pl.col("label") == label))["description"].to_list()
            assert own == [f"a {(keys or {}).get(name, name)} as {source} sees it", f"{source} number two"]
    described = texts.filter(pl.col("source") == "clip-d")["description"].to_list()
    first = paper.clip_d.get(names[0], names[0])
    assert described[0] == f"{names[0]}, which is a {first} as clip-d sees it"
    if key == "food101":
        assert described[-1] == "donuts", "without descriptors the name alone"
    assert ("top-1 is at most" in printed) == (paper.reachable is not None)
    if paper.reachable is not None:
        assert f"top-1 is at most {paper.reachable:.2f} with cupl" in printed
    crop = read_meta(Path(f"data/{key}/boxes.parquet"), BOXES).parameters.model_dump()
    score = read_meta(Path(f"data/{key}/tiny/predictions.parquet"), PREDICTIONS).parameters.model_dump()
    preset = PRESETS.get(key, {"crop": {"candidates": 30}, "score": {"iou_threshold": 0.8}})
    assert crop["candidates"] == preset["crop"]["candidates"]
    assert score["iou_threshold"] == preset["score"]["iou_threshold"]
    methods = json.loads(Path(f"data/{key}/tiny/metrics.json").read_text())
    assert len(methods) == 9
    assert "bifta-views" in Path(f"data/{key}/tiny/report/table.md").read_text()
