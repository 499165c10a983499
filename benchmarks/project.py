"""A project folder of its own for a benchmark: photos in class folders, sentences, and the pipeline's parameters."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.common import run_measured
from stages.common import paths
from stages.common.params import PARAMS_FILE

ROOT = Path(__file__).resolve().parent.parent
DATASET = "photos"
MODELS: dict[str, dict[str, Any]] = {
    "vit-b-32": {"name": "ViT-B-32", "pretrained": None},
    "demo-clip": {"name": "local-dir:stages/demo/model"},
}
WORDS = [
    "small",
    "large",
    "red",
    "blue",
    "striped",
    "plain",
    "curved",
    "short",
    "long",
    "dark",
    "pale",
    "head",
    "wing",
    "tail",
    "back",
    "breast",
    "beak",
    "leg",
]


def class_names(count: int) -> list[str]:
    return [f"class {number:04d}" for number in range(count)]


def make_project(
    folder: Path,
    files: Sequence[Path],
    classes: int,
    sentences: int,
    model: str,
    edit: Callable[[dict[str, Any]], None] = lambda raw: None,
) -> None:
    """Write the photos, round robin over the classes, random sentences, and params.yaml.

    Args:
        files: image files; they are copied, and may repeat.
        sentences: a class, of one source.
        model: key of MODELS.
        edit: changes the parameters, which are the project's otherwise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "stages").exists():
        (folder / "stages").symlink_to(ROOT / "stages")
    names = class_names(classes)
    for number, path in enumerate(files):
        copy = folder / "images" / names[number % classes] / f"{number:06d}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    write_sentences(folder, "cupl", names, sentences, seed=0)
    raw = yaml.safe_load((ROOT / PARAMS_FILE).read_text(encoding="utf-8"))
    raw["datasets"] = {DATASET: {"reader": "folder", "root": "images"}}
    raw["models"] = {model: MODELS[model]}
    raw["sources"] = {"cupl": "sentences"}
    edit(raw)
    (folder / PARAMS_FILE).write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")


def write_sentences(folder: Path, source: str, names: Sequence[str], count: int, seed: int) -> None:
    """A source of `count` sentences of eight words a class."""
    rng = np.random.default_rng(seed)
    words = np.array(WORDS)
    answers = {name: [" ".join(rng.choice(words, 8)) + f" {n}." for n in range(count)] for name in names}
    path = folder / paths.descriptions(DATASET, source)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(answers), encoding="utf-8")


def change_params(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    path = folder / PARAMS_FILE
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    edit(raw)
    path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")


def run_stage(folder: Path, stage: str, model: str = "") -> tuple[float, float]:
    """Wall-clock seconds and peak resident MiB of a stage in a process of its own, start-up included."""
    command = [sys.executable, "-m", f"stages.{stage}", "--dataset", DATASET]
    return run_measured([*command, "--model", model] if model else command, folder)
