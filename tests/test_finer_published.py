"""FINER's six data sets in their official layouts, with unified and attribute files in the published form."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import Call, Project
from finer_project import read_lines
from miniatures import (
    AIRCRAFT,
    CARS,
    WORM,
    make_aircraft,
    make_cars,
    make_cub,
    make_dogs,
    make_inaturalist_annotated,
    make_nabirds,
)
from openai_server import Endpoint

from stages.common.errors import UserError
from stages.common.names import spelling
from stages.finer import options
from stages.finer.paths import TEST, TRAIN, unified
from stages.finer.probe import lvlms as probe
from stages.finer.unify.from_published import Labels, Places

Row = tuple[str, list[str], list[str]]
"""Path as published, coarse labels, fine labels."""


@dataclass(frozen=True)
class Published:
    """A data set: its miniature, what is published for it, and what must come of it."""

    make: Callable[[Path], None]
    superordinate: str
    kinds: tuple[str, ...]
    """The options of the superordinate question."""
    rows: list[Row]
    attributes: list[dict[str, Any]]
    names: list[str]
    """Of the class of each row."""
    required: dict[str, list[str]]
    """Class -> attributes."""
    built: dict[str, tuple[list[str], list[str]]]
    """Class -> coarse and fine labels of a file that is built."""
    coarse_options: int = 0


def concept(name: str, *required: str, **more: Any) -> dict[str, Any]:
    return {"id": 0, "name": name, "attr_binomial": {"required": list(required), "likely": []}, **more}


DUCKS = ["Ducks", "Geese", "Swans"]
DRAKE, DUCK = "Common Eider (Adult male)", "Common Eider (Female/juvenile)"
BIRD_ROOT, DOG_ROOT = "nabirds/images", "stanford_dogs/Images"

SETS = {
    "cub": Published(
        make_cub,
        "Bird",
        options.ORGANISMS,
        [
            ("CUB_200_2011/images/001.Black_footed_Albatross/a.jpg", ["Albatross"], ["Black footed Albatross"]),
            ("CUB_200_2011/images/002.Ovenbird/c.jpg", ["Warbler"], ["Ovenbird"]),
        ],
        [concept("Black footed Albatross", "dark"), concept("Ovenbird", "olive")],
        ["Black footed Albatross", "Ovenbird"],
        {"Black footed Albatross": ["dark"], "Ovenbird": ["olive"]},
        {"Black footed Albatross": (["Albatross"], ["Black footed Albatross"]), "Ovenbird": ([], ["Ovenbird"])},
    ),
    "nabirds": Published(
        make_nabirds,
        "Bird",
        options.ORGANISMS,
        [
            (f"{BIRD_ROOT}/0817/0817.jpg", DUCKS, ["Common Eider"]),
            (f"{BIRD_ROOT}/0860/0860.jpg", DUCKS, ["Common Eider"]),
            (f"{BIRD_ROOT}/0295/0295.jpg", ["Perching Birds"], ["Ovenbird"]),
        ],
        [concept("Common Eider", "eider"), concept("Ovenbird", "olive"), concept("Black-bellied Whistling-Duck", "b")],
        [DRAKE, DUCK, "Ovenbird"],
        {DRAKE: ["eider"], DUCK: ["eider"], "Ovenbird": ["olive"], "Black-bellied Whistling-Duck": ["b"]},
        {DRAKE: (DUCKS, ["Common Eider"]), "Ovenbird": (["Perching Birds"], ["Ovenbird"])},
    ),
    "aircraft": Published(
        make_aircraft,
        "Airplane",
        options.OBJECTS,
        [
            (f"fgvc-aircraft-2013b/data/images/10{number}.jpg", [maker], list(dict.fromkeys([family, variant])))
            for number, (variant, (family, maker)) in enumerate(AIRCRAFT.items())
        ],
        [
            *(concept(name, f"of {name}") for name in ("Boeing 737", "CRJ-700", "CRJ-900", "MD-80")),
            concept("MD-87", "none"),
            concept("737-800"),
        ],
        list(AIRCRAFT),
        {
            "737-800": ["of Boeing 737"],
            "CRJ-700": ["of CRJ-700"],
            "CRJ-900": ["of CRJ-900"],
            "MD-87": ["of MD-80"],
        },
        {"CRJ-900": (["Canadair"], ["CRJ-900", "CRJ-700"]), "CRJ-700": (["Canadair"], ["CRJ-700"])},
        coarse_options=30,
    ),
    "stanford-cars": Published(
        make_cars,
        "Car",
        options.OBJECTS,
        [
            ("stanford_cars/cars_test/00001.jpg", ["van"], [CARS[1]]),
            ("stanford_cars/cars_test/00002.jpg", ["SUV"], [CARS[0]]),
        ],
        [concept(name, f"of {name}") for name in CARS],
        [CARS[1], CARS[0]],
        {name: [f"of {name}"] for name in CARS},
        {CARS[1]: (["van"], [CARS[1]]), CARS[0]: (["SUV"], [CARS[0]])},
        coarse_options=7,
    ),
    "stanford-dogs": Published(
        make_dogs,
        "Dog",
        options.DOGS_AND_OTHERS,
        [
            (f"{DOG_ROOT}/n02099267-flat-coated_retriever/n02099267_1.jpg", ["Retriever"], ["coated retriever"]),
            (f"{DOG_ROOT}/n02086240-Shih-Tzu/n02086240_1.jpg", ["Toy dog"], ["Tzu"]),
        ],
        [concept("coated retriever", "black"), concept("Tzu", "long hair"), concept("Chihuahua", "small")],
        ["flat-coated retriever", "Shih-Tzu"],
        {"flat-coated retriever": ["black"], "curly-coated retriever": ["black"], "Shih-Tzu": ["long hair"]},
        {"Shih-Tzu": ([], ["Shih-Tzu"])},
    ),
    "inaturalist": Published(
        make_inaturalist_annotated,
        "Animalia",
        options.ORGANISMS,
        [(f"inaturalist/val/{WORM}/a.jpg", ["Worm", "Earthworm"], ["Lumbricus terrestris", "Common Earthworm"])],
        [
            concept("Lumbricus terrestris", common_name="Earthworm", attr_common={"required": ["r"], "likely": []}),
            concept("Poa annua", "flat leaves", common_name="Annual Meadow Grass"),
        ],
        ["Lumbricus terrestris"],
        {"Lumbricus terrestris": ["r"], "Poa annua": ["flat leaves"]},
        {
            "Lumbricus terrestris": (["Lumbricidae"], ["Lumbricus terrestris", "Common Earthworm"]),
            "Poa annua": (["Poaceae"], ["Poa annua", "Annual Meadow Grass"]),
        },
    ),
}  # fmt: skip

FORMS = ("/shared/nas/data/m1/user/{}", "{{data_dir_path}}/{}", "{}")
"""How published files write a path."""


def write_published(path: Path, data: Published, rows: list[Row], form: str) -> None:
    lines = [
        {"idx": idx, "basic-level-lbl": data.superordinate, "coarse-level-lbl": coarse, "fine-level-lbl": fine,
         "img_path": form.format(place), "metadata": {}}
        for idx, (place, coarse, fine) in enumerate(rows)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def set_up(project: Project, key: str) -> Published:
    """The project with the one data set `x`, nothing computed."""
    data = SETS[key]
    (project.folder / "given").mkdir()
    data.make(project.folder / "given")
    attributes = project.folder / "descriptions/x/attributes.json"
    attributes.parent.mkdir(parents=True)
    attributes.write_text(json.dumps(data.attributes))

    def edit(params: dict[str, Any]) -> None:
        params["datasets"] = {"x": {"reader": key, "root": "given"}}
        params["finer"].update(datasets={"x": {"train_share": 0.0}}, encoder="tiny", served={})
        params["finer"].update(endpoints={"vlm": {"model": "a-model"}})
        params["finer"]["ask"].update(prompting=["plain"], images_per_class=None)

    project.edit(edit)
    return data


def asked(call: Call) -> pl.DataFrame:
    done = call("finer.ask", "--lvlm", "vlm")
    assert done.code == 0 and done.err == "", done.err
    assert "missing: none" in done.out
    return pl.read_parquet("data/finer/answers/vlm/x.parquet")


def class_names() -> list[str]:
    return pl.read_parquet("data/x/classes.parquet")["name"].to_list()


@pytest.mark.parametrize("key", SETS)
def test_a_data_set_of_the_paper_with_its_published_files(
    key: str, project: Project, call: Call, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = set_up(project, key)
    monkeypatch.chdir(project.folder)
    endpoint.answer = lambda prompt: f"Answer: {options.listed_form(data.superordinate)}"
    done = call("ingest", "--dataset", "x")
    assert done.code == 0, done.err
    done = call("finer.concepts", "--dataset", "x")
    assert (done.code, done.err) == (0, "")
    entries = json.loads(Path("data/finer/attributes/x.json").read_text())
    required = {spelling(one["name"]): one["attr_binomial"]["required"] for one in entries}
    assert {name: required[spelling(name)] for name in data.required} == data.required
    # Built from the tables.
    assert call("finer.unify", "--dataset", "x").code == 0
    table = asked(call)
    names = [spelling(name) for name in class_names()]
    for name, labels in data.built.items():
        rows = table.filter(pl.col("label") == names.index(spelling(name)))
        assert [(row["coarse"], [spelling(form) for form in row["fine"]]) for row in rows.to_dicts()[:1]] == [
            (labels[0], [spelling(form) for form in labels[1]])
        ]
    # From a published file; another way to write its paths for each data set.
    write_published(Path("unified.jsonl"), data, data.rows, FORMS[[*SETS].index(key) % 3])
    project.edit(lambda params: params["finer"]["datasets"]["x"].update(unified="unified.jsonl"))
    assert call("finer.unify", "--dataset", "x").code == 0
    table = asked(call)
    for idx, (place, coarse, fine) in enumerate(data.rows):
        row = table.filter(pl.col("idx") == idx).to_dicts()[0]
        assert spelling(class_names()[row["label"]]) == spelling(data.names[idx])
        assert place.endswith(row["image_id"]) or row["image_id"].endswith(place)
        assert (row["superordinate"], row["coarse"], sorted(row["fine"])) == (data.superordinate, coarse, sorted(fine))
    shown = table.filter(pl.col("input") == "image").unique("granularity")
    questions = dict(shown.select("granularity", "question").rows())
    listed = {level: text.partition("Choose one of: ")[2].partition(". ")[0] for level, text in questions.items()}
    assert listed["superordinate"] == ", ".join(data.kinds)
    assert (len(listed["coarse"].split(", ")) if listed["coarse"] else 0) == data.coarse_options
    assert call("finer.score").code == 0
    scores = pl.read_parquet("data/finer/scores.parquet").filter(pl.col("granularity") == "superordinate")
    assert scores.select("em", "strict_em").unique().rows() == [(1.0, 1.0)]


def test_aircraft_whose_family_is_another_variant_all_the_way(
    project: Project, call: Call, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the images to train on are of a split that was not ingested, so that names alone tell their class."""
    data = set_up(project, "aircraft")
    monkeypatch.chdir(project.folder)
    assert call("ingest", "--dataset", "x").code == 0
    assert call("finer.concepts", "--dataset", "x").code == 0
    trained = [(place.replace("/10", "/20"), coarse, fine) for place, coarse, fine in data.rows]
    write_published(Path("test.jsonl"), data, data.rows, FORMS[0])
    write_published(Path("train.jsonl"), data, trained, FORMS[0])
    files = {"unified": "test.jsonl", "unified_train": "train.jsonl"}
    project.edit(lambda params: params["finer"]["datasets"]["x"].update(files))
    project.edit(lambda params: params["finer"]["mixture"].update(held_out_classes=0.0))
    done = call("finer.unify", "--dataset", "x")
    assert (done.code, done.err) == (0, "")
    labels = {split: [row["metadata"]["label"] for row in read_lines(unified("x", split))] for split in (TRAIN, TEST)}
    assert labels == {"train": list(range(5)), "test": list(range(5))}
    assert call("finer.concepts", "--dataset", "x").code == 0
    assert call("finer.mixture").code == 0
    said = {
        entry["id"]: [turn["value"] for turn in entry["conversations"]][3::2]
        for entry in json.loads(Path("data/finer/mixture/attributes.json").read_text())
    }
    assert said["x-2"] == ["of CRJ-900", "Answer: CRJ-900"]
    assert said["x-4"] == ["of MD-80", "Answer: MD-87"]
    assert len(asked(call)) and call("finer.score").code == 0
    monkeypatch.setattr(probe, "extract", lambda llava, images: (np.zeros((len(images), 2)),) * 2)
    monkeypatch.setattr(probe, "probe_features", lambda sides, labels, *rest: {"labels": labels.tolist()})
    found = probe.probe_dataset(None, "x", None, 0)  # type: ignore[arg-type]
    assert found == {"labels": [*range(5), *range(5)]}


def test_what_a_published_file_does_not_say_is_one_line(
    project: Project, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = set_up(project, "nabirds")
    monkeypatch.chdir(project.folder)
    assert call("ingest", "--dataset", "x").code == 0
    project.edit(lambda params: params["finer"]["datasets"]["x"].update(unified="unified.jsonl"))

    def error(place: str, fine: str) -> str:
        write_published(Path("unified.jsonl"), data, [data.rows[2], (place, ["Ducks"], [fine])], FORMS[0])
        done = call("finer.unify", "--dataset", "x")
        assert done.code == 1 and done.err.count("error:") == 1
        return done.err.splitlines()[-1]

    # A training image, which the table does not have: its name is that of two classes. The remedy works.
    train = f"{BIRD_ROOT}/0817/1817.jpg"
    assert f"unified.jsonl, line 2: the fine label 'Common Eider' could be the class '{DRAKE}' or '{DUCK}'" in (
        told := error(train, "Common Eider")
    )
    assert "ingest a split that has it (datasets.x.split)" in told
    project.edit(lambda params: params["datasets"]["x"].update(split="all"))
    assert call("ingest", "--dataset", "x").code == 0
    assert call("finer.unify", "--dataset", "x").code == 0
    # A label that contradicts the image.
    told = error(f"{BIRD_ROOT}/0817/0817.jpg", "Ovenbird")
    assert f"the fine label 'Ovenbird' is that of the class 'Ovenbird', but the image is of the class '{DRAKE}'" in told
    assert "1 images are not there, such as '/shared/nas" in error(f"{BIRD_ROOT}/0817/none.jpg", "Common Eider")


PLACES = ["val/cat/1.jpg", "val/cat/2.jpg", "val/dog/1.jpg", "2021_valid/00001_x/3.jpg", "4.jpg"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("val/cat/2.jpg", "val/cat/2.jpg"),
        ("{data_dir_path}/data/val/cat/1.jpg", "val/cat/1.jpg"),
        ("/nas/other name/val/dog/1.jpg", "val/dog/1.jpg"),
        ("cat/1.jpg", "val/cat/1.jpg"),
        (r"D:\sets\data\val\cat\1.jpg", "val/cat/1.jpg"),
        ("../x//data/./val/dog/1.jpg", "val/dog/1.jpg"),
        ("./2.jpg", "val/cat/2.jpg"),
        ("/nas/inaturalist/val/00001_x/3.jpg", "2021_valid/00001_x/3.jpg"),
        ("/nas/data/4.jpg", "4.jpg"),
        ("/nas/elsewhere/4.jpg", None),  # the name of a file alone says too little
        ("/nas/data/train/cat/1.jpg", None),  # another split's
        ("/nas/val/cow/1.jpg", None),
        ("1.jpg", "could be the image 'val/cat/1.jpg' or 'val/dog/1.jpg' of"),
    ],
)
def test_an_image_is_found_by_the_end_of_its_path(path: str, found: str | None, tmp_path: Path) -> None:
    places = Places((tmp_path / "data").as_posix(), PLACES)
    if found and found.startswith("could"):
        with pytest.raises(UserError, match=found):
            places.find(path)
    else:
        assert places.find(path) == (tmp_path / "data" / found if found else None)


def test_a_root_that_is_one_split_holds_no_image_of_another(tmp_path: Path) -> None:
    places = Places((tmp_path / "val").as_posix(), ["cat/1.jpg"])
    assert places.find("/nas/data/val/cat/1.jpg") == tmp_path / "val/cat/1.jpg"
    assert places.find("/nas/data/train/cat/1.jpg") is None


def test_a_data_set_with_a_fault_does_not_keep_the_others_from_being_asked(
    project: Project, call: Call, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(project, "aircraft")
    project.edit(lambda params: params["datasets"].update(y=params["datasets"]["x"]))
    project.edit(lambda params: params["finer"]["datasets"].update(y={"train_share": 0.0}))
    monkeypatch.chdir(project.folder)
    shutil.copytree("descriptions/x", "descriptions/y")
    for dataset in ("x", "y"):
        assert call("ingest", "--dataset", dataset).code == 0
        assert call("finer.unify", "--dataset", dataset).code == 0
    assert call("finer.concepts", "--dataset", "x").code == 0
    done = call("finer.ask", "--lvlm", "vlm")
    assert done.code == 1 and len(done.err.splitlines()) == 1
    assert "data/finer/attributes/y.json is missing; run `python -m stages.finer.concepts --dataset y`" in done.err
    assert len(pl.read_parquet("data/finer/answers/vlm/x.parquet"))


# Names of classes

VARIANTS = [["707-320", "Boeing 707"], ["707-420", "Boeing 707"], ["A300B4", "A300"]]
CRJ = [["CRJ-700"], ["CRJ-900", "CRJ-700"], ["MD-87", "MD-80"], ["MD-80"]]


@pytest.mark.parametrize(
    ("names", "fine", "found"),
    [
        (VARIANTS, ["boeing_707", "707 320"], {0}),  # in any spelling
        (VARIANTS, ["Boeing 707"], {0, 1}),
        (VARIANTS, ["DC-3"], set()),
        # A family may be another class's own name: the whole set decides.
        (CRJ, ["CRJ-700", "CRJ-900"], {1}),
        (CRJ, ["CRJ-700"], {0}),
        (CRJ, ["md 80"], {3}),
        (CRJ, ["MD-87"], {2}),
    ],
)
def test_the_class_that_fine_labels_name(names: list[list[str]], fine: list[str], found: set[int]) -> None:
    assert Labels(names).find(fine) == found


@pytest.mark.parametrize(
    ("fine", "why"),
    [
        ("A300 B3", "the fine label 'A300 B3' is no class of the data set (did you mean 'A300B4'?)"),
        # The family alone does not say which variant it is.
        ("Boeing 707", "the fine label 'Boeing 707' could be the class '707-320' or '707-420'"),
    ],
)
def test_why_fine_labels_name_no_one_class(fine: str, why: str) -> None:
    assert Labels(VARIANTS).puzzle([fine]) == why
