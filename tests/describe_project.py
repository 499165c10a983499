"""A project folder with one source to ask for, `parts`, and ways to run the stage describe in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml
from artifact_files import filled

from stages.common import tables
from stages.common.artifacts import CLASSES, ClassesParameters
from stages.common.params import load_params
from stages.describe.make import describe

ROOT = Path(__file__).parents[1]
NAMES = ["Abyssinian", "great pyrenees", "Egyptian Mau", "Übermops"]
JSON = Path("descriptions/demo/parts.json")
LOG = Path("data/demo/responses/parts.jsonl")
PROMPTS = Path("descriptions/prompts/parts.yaml")


def make_project(folder: Path, names: list[str] = NAMES, **settings: object) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["sources"], params["models"] = {"parts": "sentences"}, {}
    params["describe"] |= {"model": "a-model", "concurrency": 3, "timeout": 5.0, "max_retries": 1} | settings
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    classes = filled(CLASSES, {"label": list(range(len(names))), "name": names})
    meta = tables.make_meta(CLASSES, "demo", ClassesParameters())
    tables.write_table(folder / "data/demo/classes.parquet", classes, meta)
    write_prompts(folder, "Describe {name}", "Which ears has {name}")


def write_prompts(folder: Path, *templates: str, **settings: object) -> None:
    path = folder / PROMPTS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"templates": list(templates), **settings}))


def run_here() -> None:
    """The stage in this process: quicker than a process of its own."""
    describe("demo", "parts", load_params().describe)


def command(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stages.describe", "--dataset", "demo", "--source", "parts"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_stage(folder: Path) -> tuple[int, str, str]:
    """The stage in a process of its own: exit code, standard output, standard error."""
    process = command(folder)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def log_lines() -> list[dict]:
    return [json.loads(line) for line in LOG.read_text().splitlines()]


def answers() -> list[dict]:
    return [line for line in log_lines() if "answer" in line]
