"""`make finer` at a size for tests: the real dvc.yaml files; a toy is built, tuned, served by `transformers serve`."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import drift
import polars as pl
import pytest
from conftest import ROOT, Project, make_tiny_model
from openai_server import KEY, Endpoint
from PIL import Image

pytestmark = pytest.mark.pipeline

RUNNING = re.compile(r"^Running stage '(?:stages/finer/(?:tuning/)?dvc.yaml:)?([^']+)':$", re.MULTILINE)
PIPELINE = "stages/finer/dvc.yaml"
REPORT = Path("data/finer/report")


def very_small(params: dict[str, Any]) -> None:
    params["models"] = {"tiny": {"name": "local-dir:tiny-model"}}
    params["sources"] = {"cupl": "sentences"}
    params["demo"].update(images_per_class=2)
    params["crop"].update(candidates=10, max_views=4, iou_thresholds=[0.8])
    params["refine"].update(top_k=5, waffle_pairs=1)
    params["score"].update(views_per_run=4, runs=2)
    params["report"].update(pictures=1)
    finer = params["finer"]
    finer.update(encoder="tiny")
    finer["ask"].update(
        granularities=["superordinate", "fine"], prompting=["plain", "attrseek"], inputs=["image", "text"],
        images_per_class=1, max_tokens=6,
    )  # fmt: skip
    finer["score"].update(resamples=50)
    finer["probe"].update(epochs=1, seeds=2, hidden=8)
    finer["mixture"].update(per_dataset=25)
    finer["tune"].update(rank=2, alpha=4, micro_batch=4)
    finer["toy"].update(drawings=24, steps=2, batch_size=4)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project's own pipelines with everything computed once."""
    folder = tmp_path_factory.mktemp("finer") / "repository"
    folder.mkdir()
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore", "Makefile"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("stages", ".dvc/plots", "descriptions/prompts"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
    (folder / "descriptions/demo").mkdir()
    for name in ("attributes.json", "cupl.json", "finer.json"):
        shutil.copy(ROOT / "descriptions/demo" / name, folder / "descriptions/demo" / name)
    made = Project(folder)
    made.edit(very_small)
    make_tiny_model(folder / "tiny-model")
    made.run("git", "init", "--quiet")
    made.records = folder.parent / "records"
    made.records.mkdir()
    made.run("dvc", "repro")
    made.run("make", "stages/finer/.dvcignore")
    made.run("dvc", "repro", PIPELINE)
    made.records = None
    return made


def ran(project: Project) -> list[str]:
    return RUNNING.findall(project.run("dvc", "repro", PIPELINE).stdout)


def test_everything_is_there_and_a_second_run_runs_nothing(repository: Project) -> None:
    folder = repository.folder
    for lvlm in ("toy", "toy-tuned"):
        answers = pl.read_parquet(folder / f"data/finer/answers/{lvlm}/demo.parquet")
        assert len(answers) == 25 * (4 + 1) and answers["missing"].null_count() == len(answers)
    table = (folder / REPORT / "table.md").read_text()
    assert "toy-tuned" in table and "no evidence" in table
    pictures = sorted((folder / REPORT / "pictures").glob("*.png"))
    assert {path.stem for path in pictures} >= {f"demo-{name}" for name in ("attrseek", "gap", "granularity", "probe")}
    assert all(min(Image.open(path).size) > 200 for path in pictures)
    figures = json.loads((folder / "data/finer/metrics.json").read_text())
    for lvlm in ("toy", "toy-tuned"):
        assert figures[lvlm]["demo"]["fine/image/plain"]["asked"] == 25
        assert figures[lvlm]["demo"]["gap"]["plain"]["pairs"] == 25
    assert {row["model"] for row in json.loads((folder / REPORT / "probe.json").read_text())} == {"toy", "toy-tuned"}
    # Two steps make no model that lists attributes for sure.
    metrics = json.loads((folder / "data/demo/tiny/attrseek/metrics.json").read_text())
    assert set(metrics) <= {"attrseek (toy)", "attrseek (toy-tuned)"}
    assert (folder / "data/demo/tiny/attrseek/predictions.parquet").exists()
    assert len(json.loads((folder / "data/finer/mixture/classes.json").read_text())["demo"]["held_out"]) == 5
    assert ran(repository) == []


def test_the_tables_say_that_the_model_is_a_toy(repository: Project) -> None:
    said = repository.run("python", "-m", "stages.finer").stdout
    assert "toy" in said and "no evidence" in said
    assert all(len(line) <= 116 for line in said.splitlines())


def test_what_is_asked_changes_what_is_asked_and_scored_alone(repository: Project) -> None:
    log = repository.folder / "data/finer/responses/toy/demo.jsonl"
    before = log.read_bytes()
    repository.edit(lambda params: params["finer"]["ask"].update(inputs=["image"]))
    assert set(ran(repository)) == {"ask@toy", "ask@toy-tuned", "score", "report", "align@demo-tiny", "probe"}
    assert log.read_bytes() == before  # fewer questions, all of them answered already
    repository.edit(lambda params: params["finer"]["score"].update(resamples=60))
    assert set(ran(repository)) == {"score", "report"}


def test_the_first_pipeline_does_without_the_second(repository: Project) -> None:
    done = repository.run("dvc", "repro").stdout
    assert "stages/finer/tuning" not in done and "ask@" not in done
    assert (repository.folder / "data/demo/tiny/report/table.md").exists()


CHECKS = (drift.unlisted_files, drift.unread_deps, drift.unlisted_params, drift.unread_params, drift.unlisted_code)


@pytest.mark.parametrize("difference", CHECKS)
def test_dvc_lists_what_a_stage_reads(
    repository: Project, difference: Callable[[drift.Listed, drift.Recorded], set[str]]
) -> None:
    """Of the first run of every stage of all three dvc.yaml files."""
    runs = drift.recorded(repository.folder.parent / "records", repository.folder)
    stages = drift.listed(repository.folder)
    assert set(runs) == set(stages)
    found = {stage.name: difference(stage, runs[command]) for command, stage in stages.items()}
    assert {name: sorted(names) for name, names in found.items() if names} == {}


def test_dvc_lists_what_is_read_to_ask_an_endpoint(
    repository: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """params.yaml names no endpoint, so that `ask-endpoint` is not among the stages above."""
    before, command = (repository.folder / "params.yaml").read_text(), "python -m stages.finer.ask --lvlm far"
    monkeypatch.setenv("FAR_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    repository.records = tmp_path
    with Endpoint() as server:
        far = {"model": "m", "base_url": server.url, "api_key_env": "FAR_KEY", "vision": True}
        try:
            repository.edit(lambda params: params["finer"]["endpoints"].update(far=far))
            repository.run(*command.split())
            stage, run = drift.listed(repository.folder)[command], drift.recorded(tmp_path, repository.folder)[command]
        finally:
            repository.records = None
            (repository.folder / "params.yaml").write_text(before)
            for made in ("answers/far", "responses/far"):
                shutil.rmtree(repository.folder / "data/finer" / made, ignore_errors=True)
    assert {check.__name__: found for check in CHECKS if (found := check(stage, run))} == {}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_record_has_every_file_that_the_system_saw_opened(repository: Project, tmp_path: Path) -> None:
    """Files are opened in Python, in pyarrow, polars and safetensors; the recorder must miss none of them."""
    repository.records = tmp_path / "records"
    repository.records.mkdir()
    command = ("python", "-m", "stages.finer.align", "--dataset", "demo")
    try:
        repository.run("strace", "-f", "-qq", "-e", "trace=open,openat", "-o", str(tmp_path / "trace"), *command)
    finally:
        repository.records = None
    run = drift.recorded(tmp_path / "records", repository.folder)[" ".join(command)]
    opened = set()
    for name in re.findall(r'"([^"]+)", O_RDONLY[^)]*\) = \d', (tmp_path / "trace").read_text(errors="replace")):
        path = repository.folder / name
        if path.is_file() and path.is_relative_to(repository.folder):
            opened.add(path.relative_to(repository.folder).as_posix())
    assert any(name.endswith(".parquet") for name in opened) and any(name.endswith(".safetensors") for name in opened)
    assert {name for name in opened if not name.startswith(drift.CODE)} <= run.read
