"""The small project whose artifacts are corrupted: computed once, from ingest to both reports."""

from __future__ import annotations

import csv
import importlib
import json
import os
import pkgutil
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from conftest import ROOT, Project, descriptions_for, make_image, make_tiny_model, small_params
from finer_project import answers_parameters, finer_params, write_attributes_file

from stages.common import artifacts, errors
from stages.common.labels import read_classes, read_labels
from stages.common.methods import METHODS
from stages.common.predictions import open_predictions, read_best
from stages.common.tables import make_meta, read_table, write_json, write_table
from stages.finer import artifacts as finer
from stages.finer import paths as finer_paths
from stages.finer.tune.train import read_mixture

FOREIGN = Path("foreign")
"""Folder of artifacts that some other run made."""
NAMES = ("red-crowned tavo", "blue tavo", "grey heron", "white heron", "pale finch", "night finch", "long finch")
OTHER_NAMES = tuple(f"little {name}" for name in NAMES)
IMAGES = 14
LEVELS = ("superordinate", "coarse", "fine")


@dataclass(frozen=True)
class Stage:
    """A stage, as it is run on the project."""

    line: str
    """`<name> <arguments>`"""
    outputs: tuple[str, ...]
    """Files, or folders with all that is in them."""
    keeps: bool = False
    """Whether it uses its earlier outputs, so that they must be there."""
    prints: bool = False
    """Whether what it prints is a result."""


TOY, TINY = "data/toy", "data/toy/tiny"
SCORED = ("predictions.parquet", "top5.parquet", "predictions.csv", "metrics.json", "top1.json")
STAGES = {
    "describe": Stage("describe --dataset toy", ("descriptions/toy",), keeps=True, prints=True),
    "refine": Stage("refine --dataset toy --model tiny", (f"{TINY}/texts.parquet",), keeps=True),
    "crop": Stage("crop --dataset toy", (f"{TOY}/boxes.parquet",)),
    "embed": Stage("embed --dataset toy --model tiny", (f"{TINY}/views",), keeps=True),
    "score": Stage(
        "score --dataset toy --model tiny",
        tuple(f"{TINY}/{name}" for name in SCORED),
    ),
    "report": Stage("report --dataset toy --model tiny", (f"{TINY}/report", "data/summary/rows/toy-tiny.json")),
    "report (print)": Stage("report", (), prints=True),
    "summary": Stage("report.summary --quiet", tuple(f"data/summary/summary.{form}" for form in ("md", "csv", "tex"))),
    "finer.concepts": Stage(
        "finer.concepts --dataset toy", ("data/finer/attributes/toy.json", "descriptions/toy/finer.json")
    ),
    "finer.unify": Stage("finer.unify --dataset toy", ("data/finer/unified",)),
    "finer.mixture": Stage("finer.mixture", ("data/finer/mixture",)),
    "finer.score": Stage(
        "finer.score", ("data/finer/scores.parquet", "data/finer/metrics.json", "data/finer/exact_match.json")
    ),
    "finer.align": Stage("finer.align --dataset toy", (f"{TINY}/attrseek",), prints=True),
    "finer.report": Stage("finer.report", ("data/finer/report",)),
    "reader": Stage("reader", ("read.json",)),
}
"""`reader` stands for people: they read artifacts that no later stage reads with `stages.common.tables`."""


@dataclass(frozen=True)
class Kind:
    """A kind of artifact of the project, and who reads it."""

    path: str
    """A file, or a pattern of shards."""
    readers: tuple[str, ...]
    declared: artifacts.Artifact[Any] | None
    """None for JSON."""
    other_dataset: str = ""
    other_model: str = ""


def _of(name: str, folder: str = TOY) -> str:
    return f"{folder}/{name}"


ATTRSEEK = "data/toy/tiny/attrseek"
KINDS = {
    "images": Kind(
        _of("images.parquet"),
        ("crop", "embed", "score", "report", "finer.unify", "finer.align"),
        artifacts.IMAGES,
        "data/more/images.parquet",
    ),
    "classes": Kind(
        _of("classes.parquet"),
        ("describe", "refine", "score", "report", "finer.concepts", "finer.unify", "finer.align"),
        artifacts.CLASSES,
        "data/more/classes.parquet",
    ),
    "skipped": Kind(_of("skipped.parquet"), ("report",), artifacts.SKIPPED, "data/more/skipped.parquet"),
    "boxes": Kind(
        _of("boxes.parquet"), ("embed", "score", "report", "finer.align"), artifacts.BOXES, "data/more/boxes.parquet"
    ),
    "texts": Kind(
        _of("texts.parquet", TINY),
        ("refine", "score", "report", "finer.align"),
        artifacts.TEXTS,
        "data/more/tiny/texts.parquet",
        "data/toy/second/texts.parquet",
    ),
    "views": Kind(
        _of("views/part-*.parquet", TINY),
        ("embed", "score", "report", "finer.align"),
        artifacts.VIEWS,
        "data/more/tiny/views/part-00000.parquet",
        "data/toy/second/views/part-00000.parquet",
    ),
    "predictions": Kind(
        _of("predictions.parquet", TINY),
        ("report", "report (print)", "finer.align"),
        artifacts.PREDICTIONS,
        "data/more/tiny/predictions.parquet",
        "data/toy/second/predictions.parquet",
    ),
    "top5": Kind(
        _of("top5.parquet", TINY),
        ("reader",),
        artifacts.TOP5,
        "data/more/tiny/top5.parquet",
        "data/toy/second/top5.parquet",
    ),
    "metrics": Kind(
        _of("metrics.json", TINY),
        ("report", "report (print)"),
        None,
        "data/more/tiny/metrics.json",
        "data/toy/second/metrics.json",
    ),
    "summary's rows": Kind("data/summary/rows/toy-tiny.json", ("summary",), None),
    "answers": Kind(
        "data/finer/answers/vlm/toy.parquet",
        ("finer.score", "finer.align"),
        finer.ANSWERS,
        "data/finer/answers/vlm/more.parquet",
        "data/finer/answers/vlm-b/toy.parquet",
    ),
    "scores": Kind("data/finer/scores.parquet", ("reader",), finer.SCORES),
    "FINER's metrics": Kind("data/finer/metrics.json", ("finer.report",), None),
    "unified": Kind("data/finer/unified/unified-toy-train-combined.jsonl", ("finer.mixture",), None),
    "attributes": Kind("data/finer/attributes/toy.json", ("finer.mixture", "finer.score"), None),
    "mixture": Kind("data/finer/mixture/attributes.parquet", ("reader",), finer.MIXTURE),
    "mixture's classes": Kind("data/finer/mixture/classes.json", ("finer.score",), None),
    "attrseek": Kind(_of("predictions.parquet", ATTRSEEK), ("reader",), artifacts.PREDICTIONS),
    "attrseek's metrics": Kind(_of("metrics.json", ATTRSEEK), ("report (print)",), None),
}


def change_params(seed: int, params: dict[str, Any]) -> None:
    """A second data set and model, and images that cannot be read are skipped."""
    params["seed"], params["precision"] = seed, "float32"
    params["datasets"]["more"] = {**params["datasets"]["toy"], "root": "more-images"}
    params["models"]["second"] = {"name": "local-dir:second-model"}
    params["ingest"].update(on_bad_image="skip")
    params["embed"].update(images_per_shard=5)
    params["report"].update(pictures=3)
    params["finer"].update(endpoints={"vlm": {"model": "x"}, "vlm-b": {"model": "y"}}, served={})
    params["finer"]["score"].update(resamples=50)
    params["finer"]["mixture"].update(held_out_classes=0.0)


def make_inputs(folder: Path, seed: int) -> None:
    """The project before anything is computed: two data sets of as many images and classes, two models."""
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    project = Project(folder)
    for change in (small_params, finer_params, partial(change_params, seed)):
        project.edit(change)
    for dataset, names in (("toy", NAMES), ("more", OTHER_NAMES)):
        root = folder / f"{dataset}-images"
        with csv_of(root / "table.csv", ["image", "label", "superordinate", "coarse"]) as table:
            for number in range(IMAGES):
                name = names[number % len(names)]
                image = f"{name}/{number // len(names)}.jpg"
                make_image(root / image, 48 + 7 * number, 120 - 3 * number, seed * 1000 + number)
                table.writerow([image, name, "bird", name.split()[-1]])
            for number, content in enumerate((b"no image", b"", b"\xff\xd8\xff\xe0")):
                image = f"{names[1]}/broken-{number}.jpg"
                (root / image).write_bytes(content)
                table.writerow([image, names[1], "bird", names[1].split()[-1]])
        for source in ("cupl", "clip-d"):
            path = folder / "descriptions" / dataset / f"{source}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(descriptions_for(names)))
    write_attributes_file(folder / "descriptions/toy/attributes.json", sorted(NAMES))
    make_tiny_model(folder / "tiny-model", seed=seed)
    make_tiny_model(folder / "second-model", seed=seed + 100)


@contextmanager
def csv_of(path: Path, header: list[str]) -> Iterator[Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        yield writer


def run_line(line: str) -> None:
    """Run a stage in this process and folder, as `python -m stages.<name>` does."""
    name, *arguments = line.split()
    if name == "reader":
        read_everything()
        return
    if name == "answers":
        for lvlm in ("vlm", "vlm-b"):
            write_answers(lvlm, "toy")
        return
    module = f"stages.{name}"
    if pkgutil.resolve_name(module).__spec__.submodule_search_locations is not None:
        module = f"{module}.__main__"
    sys.argv = [f"{module.replace('.', '/')}.py", *arguments]
    importlib.import_module(module).main()


def read_everything() -> None:
    """Read what no stage reads, with the project's own reader; writes the values."""
    found: dict[str, Any] = {"mixture": read_mixture(Path(KINDS["mixture"].path))}
    classes = read_classes("toy")
    images = read_labels("toy", classes)
    for method in METHODS:
        parts = read_best(open_predictions("toy", "tiny"), images, len(classes.names), method.name)
        best = [(best.labels, best.scores, best.agreement) for _, best in parts]
        found[f"best of {method.name}"] = [[own.tolist() for own in part] for part in best]
    for name in ("scores", "mixture", "attrseek"):
        declared = KINDS[name].declared
        assert declared is not None
        table, _ = read_table(Path(KINDS[name].path), declared, declared.columns.names)
        found[f"table of {name}"] = table.to_pylist()
    write_json(Path("read.json"), found)


def write_answers(lvlm: str, dataset: str) -> None:
    """What an LVLM might have answered to every question about every image."""
    images = read_table(Path(f"data/{dataset}/images.parquet"), artifacts.IMAGES)[0].to_pylist()
    names = read_table(Path(f"data/{dataset}/classes.parquet"), artifacts.CLASSES)[0]["name"].to_pylist()
    forms = [*((level, style, "image") for level in LEVELS for style in ("plain", "attrseek"))]
    rows = []
    for idx, image in enumerate(images):
        name = names[image["label"]]
        golds = {"superordinate": "bird", "coarse": name.split()[-1], "fine": name}
        for place, (level, style, given) in enumerate([*forms, ("fine", "plain", "text")]):
            row: dict[str, Any] = dict.fromkeys(finer.ANSWERS.columns.names)
            row |= {"idx": idx, "image_id": image["image_id"], "label": image["label"], "superordinate": "bird"}
            row |= {"coarse": [golds["coarse"]], "fine": [name], "question": f"What is {level}?"}
            row |= {"granularity": level, "prompting": style, "input": given, "finish_reason": "stop"}
            row["attributes"] = f"crown {idx}; long tail" if style == "attrseek" else None
            row["answer"] = f"Answer: {golds[level] if (idx + place + len(lvlm)) % 3 else 'nothing known'}"
            rows.append(row)
    meta = make_meta(finer.ANSWERS, dataset, answers_parameters(lvlm))
    table = pa.Table.from_pylist(rows, schema=finer.ANSWERS.columns)
    write_table(finer_paths.answers(lvlm, dataset), table, meta)


def stage_lines(dataset: str, model: str) -> list[str]:
    """The stages of the first pipeline that make artifacts."""
    one, both = f"--dataset {dataset}", f"--dataset {dataset} --model {model}"
    return [f"ingest {one}", f"refine {both}", f"crop {one}", f"embed {both}", f"score {both}"]


def whole_run() -> list[str]:
    """Everything about `toy`, in order."""
    finer_first = ["finer.concepts --dataset toy", "finer.unify --dataset toy", "answers", "finer.mixture"]
    finer_last = ["finer.score", "finer.align --dataset toy", "finer.report"]
    report = ["report --dataset toy --model tiny", "report.summary --quiet"]
    return [*stage_lines("toy", "tiny"), *report, *finer_first, *finer_last]


def run_lines(lines: Iterable[str]) -> None:
    """Run stages in this process, each to its end.

    Raises:
        SystemExit: one of them refused something.
    """
    for line in lines:
        errors.run(partial(run_line, line))


def keep_as_foreign(name: str, key: str, value: float) -> None:
    """Score once with another parameter, and keep what that gives in `foreign/<name>`."""
    before = Path("params.yaml").read_bytes()
    params = yaml.safe_load(before)
    section = params if key in params else params["score"]
    section[key] = value
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    run_line(stage_lines("toy", "tiny")[-1])
    (FOREIGN / name).mkdir(parents=True)
    for file in ("predictions.parquet", "metrics.json"):
        shutil.copy(Path(TINY) / file, FOREIGN / name / file)
    Path("params.yaml").write_bytes(before)


def compute(folder: Path, seed: int) -> None:
    """Make the whole project in `folder`; leaves this process there."""
    make_inputs(folder, seed)
    os.chdir(folder)
    run_lines([*stage_lines("toy", "second"), *stage_lines("more", "tiny"), *stage_lines("toy", "tiny")])
    keep_as_foreign("seed", "seed", seed + 1)
    keep_as_foreign("threshold", "iou_threshold", 0.6)
    write_answers("vlm", "more")
    run_lines([*whole_run(), "reader"])
