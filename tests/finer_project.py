"""What tests of FINER's data share: a project whose data set has labels at three granularities, and attributes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from conftest import CLASSES, ROOT, Project

from stages.finer.artifacts import AnswersParameters, LvlmMeta
from stages.finer.params import load_finer_params

COARSE = {"red-crowned tavo": "finch", "blue tavo": "finch", "Grey_Heron": "wader"}
NAMES = ["Grey_Heron", "blue tavo", "red-crowned tavo"]
"""In order of labels."""


def finer_params(params: dict[str, Any]) -> None:
    """The folder data set `toy` as a manifest with superordinates and coarse labels."""
    params["datasets"]["toy"] = {"reader": "manifest", "root": "toy-images", "manifest": "table.csv"}
    params["finer"].update(datasets={"toy": {"train_share": 0.5}}, encoder="tiny")


def make_labelled(project: Project) -> Project:
    """`project` with a manifest, and with concept attributes for `toy` as the stage `concepts` leaves them."""
    project.edit(finer_params)
    with (project.folder / "toy-images/table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "superordinate", "coarse"])
        for name in CLASSES:
            for path in sorted((project.folder / "toy-images" / name).iterdir()):
                writer.writerow([f"{name}/{path.name}", name, "bird", COARSE[name]])
    write_attributes_file(project.folder / "descriptions/toy/attributes.json", NAMES)
    write_attributes_file(project.folder / "data/finer/attributes/toy.json", NAMES)
    return project


def write_attributes_file(path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [
        {"id": number, "name": name, "attr_binomial": {"required": [f"crown {number}", f"tail {number}"], "likely": []}}
        for number, name in enumerate(names)
    ]
    path.write_text(json.dumps(entries))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def answers_parameters(lvlm: str) -> AnswersParameters:
    """What the metadata of some answers says was asked."""
    ask = load_finer_params(ROOT / "params.yaml").finer.ask
    asked = ask.model_dump(include=set(AnswersParameters.model_fields))
    return AnswersParameters(lvlm=LvlmMeta(lvlm=lvlm, name=lvlm), seed=0, **asked)
