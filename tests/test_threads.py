"""What is computed is the same to the bit, however many cores compute it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from conftest import Project, descriptions_for, make_image
from embed_project import in_folder

from stages.common.params import load_params
from stages.finer.align.attrseek import align

STAGES = ["crop --dataset toy", *(f"{stage} --dataset toy --model tiny" for stage in ("refine", "embed", "score"))]


def test_artifacts_are_the_same_bytes_with_any_number_of_threads(project: Project) -> None:
    """With 23 classes, because a product of that width is rounded differently if four threads share it."""
    shutil.rmtree(project.folder / "toy-images")
    names = tuple(f"bird {number:02}" for number in range(23))
    for number, name in enumerate(names):
        make_image(project.folder / "toy-images" / name / "0.jpg", 60, 50, number)
    for source in ("cupl", "clip-d"):
        (project.folder / "descriptions/toy" / f"{source}.json").write_text(json.dumps(descriptions_for(names)))
    project.edit(lambda params: params["score"].update(runs=20))
    project.edit(lambda params: params["embed"].update(images_per_shard=100))
    in_folder(project.folder, "ingest --dataset toy")
    found = {}
    for threads in (1, 2, 4):
        shutil.rmtree(project.folder / "data/toy/tiny", ignore_errors=True)
        in_folder(project.folder, *STAGES, threads=threads)
        found[threads] = {path.name: path.read_bytes() for path in made(project.folder / "data/toy")}
    scored = {"predictions.parquet", "top5.parquet", "predictions.csv", "metrics.json"}
    assert {"boxes.parquet", "texts.parquet", "part-00000.parquet", *scored} <= found[1].keys()
    assert found[1] == found[2] == found[4]


def made(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "settings"]


def test_attributes_are_aligned_to_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    views = [rng.normal(size=(3, 16)).astype(np.float32) for _ in range(7)]
    whole, classes = (rng.normal(size=(count, 16)).astype(np.float32) for count in (7, 37))
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(align(views, whole, classes, load_params().score).tobytes())
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]
