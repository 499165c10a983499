"""The real dvc.yaml, run as a user runs it: which change makes which stages run, and what is there in the end.

All tests share one repository, which every test finds and leaves up to date; what a change must run is worked out from
the data sets, models and sources that params.yaml names at that moment, so no test needs another to have run before.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from conftest import (
    CLASSES,
    ROOT,
    Project,
    descriptions_for,
    make_folder_data,
    make_image,
    make_tiny_model,
    small_params,
)
from PIL import Image

pytestmark = pytest.mark.pipeline

RUNNING = re.compile(r"^Running stage '([^']+)':$", re.MULTILINE)
TABLES = ("images.parquet", "classes.parquet", "boxes.parquet")
OF_A_MODEL = ("texts.parquet", "predictions.parquet", "metrics.json")
METHODS = ("clip", "clip-e", "waffle", "cupl", "wca", "bifta-views", "bifta-texts", "bifta")
EVERY_STAGE = ("settings", "ingest", "describe", "crop", "refine", "embed", "score", "report")
SUMMARY = "summary"
OF_A_DATASET = ("settings", "ingest", "describe", "crop")
SENTENCES = descriptions_for(CLASSES)
ALL_IN_ONE_PROCESS = """
import runpy, sys
for line in sys.argv[1:]:
    stage, *rest = line.split()
    sys.argv = [stage, *rest]
    runpy.run_module(f"stages.{stage}", run_name="__main__")
"""


class Repository(Project):
    """A clone of the project as a user has it, with data of their own."""

    first_run: str

    def params(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load((self.folder / "params.yaml").read_text())
        return found

    def git(self, *arguments: str) -> None:
        self.run("git", "-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", *arguments)

    def repro(self, *arguments: str) -> list[str]:
        """The stages that `dvc repro` ran, in order; without `summary`, which test_summary_pipeline.py is about."""
        return [name for name in RUNNING.findall(self.run("dvc", "repro", *arguments).stdout) if name != SUMMARY]

    def stages(self, *names: str, dataset: str = "", model: str = "") -> set[str]:
        """DVC's names of these stages for every data set and model of params.yaml, or for the given ones."""
        params = self.params()
        datasets = [dataset] if dataset else params["datasets"]
        models = [model] if model else params["models"]
        found: set[str] = set()
        for name in names:
            for key in datasets:
                if name in OF_A_DATASET:
                    found.add(f"{name}@{key}")
                else:
                    found |= {f"{name}@{key}-{other}" for other in models}
        return found

    def artifacts(self, dataset: str) -> dict[str, bytes]:
        """What the stages up to `score` made of a data set: path -> bytes."""
        folder = self.folder / "data" / dataset
        files = [folder / name for name in TABLES]
        for model in self.params()["models"]:
            files += [folder / model / name for name in OF_A_MODEL]
            files += sorted((folder / model / "views").iterdir())
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in files}

    def embedded(self, dataset: str) -> dict[str, bytes]:
        """What was embedded of a data set: path -> bytes."""
        folder = self.folder / "data" / dataset
        files = [*folder.glob("*/texts.parquet"), *folder.glob("*/views/**/*")]
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in sorted(files) if path.is_file()}

    def describe(self, dataset: str, source: str) -> Path:
        """Drop a description file in, written as the pipeline itself would not write it; sources differ."""
        path = self.folder / "descriptions" / dataset / f"{source}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = {name: [text.replace(" ", f" {source} ", 1) for text in texts] for name, texts in SENTENCES.items()}
        path.write_text(json.dumps(texts))
        return path


def make_repository(folder: Path) -> Repository:
    """A git repository with the project's own dvc.yaml, stages and DVC settings; nothing computed."""
    made = Repository(folder)
    folder.mkdir()
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/plots", "stages"):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".dvcignore"))
        else:
            shutil.copy(source, target)
    shutil.copytree(ROOT / "descriptions" / "prompts", folder / "descriptions" / "prompts")
    made.edit(small_params)
    made.edit(lambda params: params["sources"].pop("clip-d"))
    # Small shards and batches, which make embedding slow enough to be hit in its middle.
    made.edit(lambda params: params["embed"].update(images_per_shard=2, batch_size=2))
    make_tiny_model(folder / "tiny-model")
    make_folder_data(folder / "toy-images", images_per_class=2)
    made.describe("toy", "cupl")
    made.git("init", "--quiet")
    made.git("add", ".")
    made.git("commit", "--quiet", "--message", "A project")
    return made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The repository after its first `dvc repro`."""
    made = make_repository(tmp_path_factory.mktemp("pipeline") / "project")
    made.first_run = made.run("dvc", "repro").stdout
    return made


@pytest.fixture
def repository(shared: Repository, request: pytest.FixtureRequest) -> Iterator[Repository]:
    """The shared repository; what a failed test leaves undone is done before the next."""
    failed = request.session.testsfailed
    yield shared
    if request.session.testsfailed > failed:
        shared.run("dvc", "repro", check=False)


def test_first_run_runs_every_stage_once_and_keeps_the_descriptions(shared: Repository) -> None:
    ran = RUNNING.findall(shared.first_run)
    assert sorted(ran) == sorted({"draw", SUMMARY} | shared.stages(*EVERY_STAGE, dataset="toy", model="tiny"))
    described = (shared.folder / "descriptions/toy/cupl.json").read_bytes()
    assert described == shared.describe("toy", "cupl").read_bytes()
    assert "descriptions/toy/cupl.json: used as it is" in shared.first_run


def test_nothing_changed_runs_nothing(repository: Repository) -> None:
    before = repository.artifacts("toy")
    assert RUNNING.findall(repository.run("dvc", "repro").stdout) == []
    assert repository.artifacts("toy") == before


def test_source_added(repository: Repository) -> None:
    added = repository.describe("toy", "attrvr_des")
    for other in set(repository.params()["datasets"]) - {"toy"}:
        repository.describe(other, "attrvr_des")
    text = added.read_bytes()
    repository.edit(lambda params: params["sources"].update(attrvr_des="sentences"))
    expected = repository.stages("settings", "describe", "refine", "score", "report")
    assert sorted(repository.repro()) == sorted(expected)
    assert added.read_bytes() == text


def _set(section: str, **values: object) -> Callable[[dict[str, Any]], None]:
    return lambda params: params[section].update(values)


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        pytest.param(_set("refine", top_k=3), ("settings", "refine", "score", "report"), id="refine"),
        pytest.param(_set("crop", min_scale=0.4), ("settings", "crop", "embed", "score", "report"), id="crop"),
        pytest.param(_set("score", runs=2), ("settings", "score", "report"), id="score"),
    ],
)
def test_parameter_changed(
    repository: Repository, change: Callable[[dict[str, Any]], None], stages: tuple[str, ...]
) -> None:
    repository.edit(change)
    assert sorted(repository.repro()) == sorted(repository.stages(*stages))


def test_model_added_and_removed(repository: Repository) -> None:
    make_tiny_model(repository.folder / "other-model", seed=1)
    before = repository.artifacts("toy")
    repository.edit(lambda params: params["models"].update(other={"name": "local-dir:other-model"}))
    expected = repository.stages("refine", "embed", "score", "report", model="other")
    assert sorted(repository.repro()) == sorted(expected)
    with_other = repository.artifacts("toy")
    assert {path: with_other[path] for path in before} == before
    assert with_other["data/toy/other/texts.parquet"] != before["data/toy/tiny/texts.parquet"]
    repository.edit(lambda params: params["models"].pop("other"))
    assert repository.repro() == []


def test_other_places_of_the_same_inputs_rerun_nothing_behind(repository: Repository, tmp_path: Path) -> None:
    """Another root: `settings` and `ingest` run. Another path of a model: what loads it runs, and embeds nothing. The
    summary runs too, because it reads which data sets and models there are."""
    moved = Repository(tmp_path / "moved")
    shutil.copytree(repository.folder, moved.folder)
    (moved.folder / "toy-images").rename(tmp_path / "images")
    (moved.folder / "tiny-model").rename(tmp_path / "clip")
    moved.edit(lambda params: params["datasets"]["toy"].update(root=str(tmp_path / "images")))
    moved.edit(lambda params: params["models"]["tiny"].update(name=f"local-dir:{tmp_path / 'clip'}"))
    done = moved.run("dvc", "repro").stdout
    of_the_root, of_the_model = moved.stages("settings", "ingest"), moved.stages("refine", "embed")
    assert sorted(RUNNING.findall(done)) == sorted({SUMMARY} | of_the_root | of_the_model)
    assert "; 0 texts embedded" in done and "0 views of 0 images embedded" in done
    assert moved.artifacts("toy") == repository.artifacts("toy")


def kill_in_the_middle_of_embed(repository: Repository, views: Path) -> str:
    """Start `dvc repro`, SIGKILL all of it when some shards are there and others not; its output so far."""
    process = subprocess.Popen(
        ["dvc", "repro"],
        cwd=repository.folder,
        env=repository.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not list(views.glob("part-*.parquet")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()[0]


def test_data_set_added_and_killed_while_embedding(repository: Repository, tmp_path: Path) -> None:
    """The second run does what the first had not done, and ends with the bytes of a run that nobody interrupted."""
    root = make_folder_data(repository.folder.parent / "elsewhere" / "birds", images_per_class=8)
    shards = len(list(root.rglob("*.jpg"))) // repository.params()["embed"]["images_per_shard"]
    for source in repository.params()["sources"]:
        repository.describe("birds", source)
    entry = {"reader": "folder", "root": str(root)}  # absolute and outside of the repository
    repository.edit(lambda params: params["datasets"].update(birds=entry))
    views = repository.folder / "data/birds/tiny/views"

    first = RUNNING.findall(kill_in_the_middle_of_embed(repository, views))
    whole = {path: path.stat().st_ino for path in views.glob("part-*.parquet")}
    assert 0 < len(whole) < shards, "the run was not killed in the middle"
    assert first[-1] == "embed@birds-tiny"
    second = repository.repro()
    assert second[0] == "embed@birds-tiny"
    assert sorted([*first, *second[1:]]) == sorted(repository.stages(*EVERY_STAGE, dataset="birds"))
    assert {path: path.stat().st_ino for path in whole} == whole, "whole shards were made again"
    assert len(list(views.iterdir())) == shards, "something else than shards is left"

    uninterrupted = run_from_scratch(repository, tmp_path / "copy", "birds")
    assert uninterrupted.artifacts("birds") == repository.artifacts("birds")

    # What one data set overrides reruns nothing else.
    repository.edit(lambda params: params["datasets"]["birds"].update(sources=[], score={"runs": 5}))
    again = repository.stages("settings", "describe", "refine", "score", "report", dataset="birds")
    assert sorted(repository.repro()) == sorted(again)
    assert list(json.loads((views.parent / "metrics.json").read_text())) == ["clip", "clip-e", "waffle"]
    assert ",clip-e\n" in (views.parent / "predictions.csv").read_text(), "random words stand for bifta"
    repository.edit(lambda params: params["datasets"].pop("birds"))
    assert repository.repro() == []


def test_image_replaced(repository: Repository) -> None:
    """Another image of the same size: only the shard that it is in is embedded again, and the boxes stay."""
    before = repository.artifacts("toy")
    views = repository.folder / "data/toy/tiny/views"
    shards = {path.name: path.stat().st_ino for path in sorted(views.iterdir())}
    image_ids = pq.read_table(repository.folder / "data/toy/images.parquet", columns=["image_id"])[
        "image_id"
    ].to_pylist()
    place = 3
    path = repository.folder / "toy-images" / image_ids[place]
    with Image.open(path) as image:
        make_image(path, *image.size, seed=1000)
    expected = repository.stages("ingest", "crop", "embed", "score", "report", dataset="toy")
    assert sorted(repository.repro()) == sorted(expected)
    after = repository.artifacts("toy")
    assert after["data/toy/boxes.parquet"] == before["data/toy/boxes.parquet"]
    assert after["data/toy/images.parquet"] != before["data/toy/images.parquet"]
    remade = {path.name for path in views.iterdir() if path.stat().st_ino != shards[path.name]}
    assert remade == {f"part-{place // repository.params()['embed']['images_per_shard']:05d}.parquet"}


def run_from_scratch(repository: Repository, folder: Path, dataset: str) -> Repository:
    """What a fresh copy of the inputs gives, every stage run directly and all in one process."""
    computed = shutil.ignore_patterns("data", ".git", "dvc.lock", "cache", "tmp", "dvc_plots")
    shutil.copytree(repository.folder, folder, ignore=computed)
    fresh = Repository(folder)
    (model,) = repository.params()["models"]
    pair = f"--dataset {dataset} --model {model}"
    plain = [f"{stage} --dataset {dataset}" for stage in ("ingest", "describe", "crop")]
    fresh.run("python", "-c", ALL_IN_ONE_PROCESS, *plain, f"refine {pair}", f"embed {pair}", f"score {pair}")
    return fresh


def test_from_scratch_the_same_bytes(repository: Repository, tmp_path: Path) -> None:
    """All that the changes above led to, step by step under DVC, is what one run of the stages gives."""
    fresh = run_from_scratch(repository, tmp_path / "copy", "toy")
    assert fresh.artifacts("toy") == repository.artifacts("toy")


def test_root_missing(repository: Repository) -> None:
    """DVC looks before the stage does; the data set's files stay."""
    before = repository.artifacts("toy")
    repository.edit(lambda params: params["datasets"]["toy"].update(root="nowhere"))
    done = repository.run("dvc", "repro", check=False)
    asked = repository.run("python", "-m", "stages.common.check", check=False)
    repository.edit(lambda params: params["datasets"]["toy"].update(root="toy-images"))
    assert done.returncode != 0
    assert set(RUNNING.findall(done.stdout)) <= {"settings@toy"}
    assert "nowhere" in done.stderr
    assert asked.returncode == 1
    assert asked.stderr.startswith("error: datasets.toy.root 'nowhere' does not exist")
    assert repository.artifacts("toy") == before
    assert set(repository.repro()) <= {"settings@toy"}  # DVC may have run it before it looked for the root


def test_unreadable_image_costs_nothing(repository: Repository) -> None:
    """The run stops with the stage's own line; with the image back there is nothing to do."""
    before = repository.artifacts("toy")
    path = next(iter(sorted((repository.folder / "toy-images").rglob("*.jpg"))))
    content = path.read_bytes()
    path.write_bytes(content[:200])
    done = repository.run("dvc", "repro", check=False)
    path.write_bytes(content)
    assert done.returncode != 0
    assert RUNNING.findall(done.stdout) == ["ingest@toy"]
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert path.name in line
    assert "Traceback" not in done.stderr
    assert repository.artifacts("toy") == before
    assert repository.repro() == []


def test_dag_names_every_stage(repository: Repository) -> None:
    drawn = repository.run("dvc", "dag").stdout
    assert [name for name in (SUMMARY, *repository.stages(*EVERY_STAGE)) if name not in drawn] == []


def test_an_experiment_with_an_override_of_one_data_set(repository: Repository) -> None:
    # As docs/experiments.md says, so that there is something to compare with.
    repository.git("add", "dvc.lock")
    repository.git("commit", "--quiet", "--allow-empty", "--message", "Baseline")
    done = repository.run("dvc", "exp", "run", "-S", "+datasets.toy.score.runs=6")
    ran = RUNNING.findall(done.stdout)
    assert sorted(ran) == sorted({SUMMARY} | repository.stages("settings", "score", "report", dataset="toy"))
    assert json.loads((repository.folder / "data/toy/tiny/metrics.json").read_text())["wca"]["runs"] == 6
    compared = json.loads(repository.run("dvc", "metrics", "diff", "--all", "--json").stdout)
    sides = [value[side] for value in compared["data/toy/tiny/top1.json"].values() for side in ("old", "new")]
    assert len(sides) >= 2 * len(METHODS) and all(isinstance(side, float) for side in sides)
    repository.edit(lambda params: params["datasets"]["toy"].pop("score"))
    repository.repro()


def test_metrics_show_every_method(repository: Repository) -> None:
    shown = json.loads(repository.run("dvc", "metrics", "show", "--json").stdout)
    files = {name: one["data"] for name, one in shown[""]["data"].items() if name.startswith("data/toy/tiny/")}
    metrics = json.loads((repository.folder / "data/toy/tiny/metrics.json").read_text())
    assert set(METHODS) <= set(metrics)
    assert files == {"data/toy/tiny/top1.json": {name: own["top1"] for name, own in metrics.items()}}
    lines = repository.run("dvc", "metrics", "show").stdout.splitlines()
    assert max(map(len, lines)) <= 130, "a column for each method"


def test_plots_show_writes_a_page(repository: Repository) -> None:
    repository.run("dvc", "plots", "show")
    page = (repository.folder / "dvc_plots/index.html").read_text()
    assert "Methods on toy with tiny" in page
    assert "Confusions on toy with tiny" in page
    assert "bifta-views" in page
    pictures = list((repository.folder / "dvc_plots/static").iterdir())
    assert any("methods.png" in path.name for path in pictures), [path.name for path in pictures]


def test_nothing_is_said_of_finer_before_it_is_used(repository: Repository, tmp_path: Path) -> None:
    repository.run("dvc", "remote", "add", "--force", "--local", "--default", "team", str(tmp_path / "remote"))
    looks = ("metrics show", "metrics diff", "plots show", "plots diff", "exp show", "status", "dag", "push", "pull")
    for command in looks:
        done = repository.run("dvc", *command.split())
        assert "finer" not in done.stdout + done.stderr, command
    assert "finer" not in repository.run("dvc", "exp", "run").stderr


def test_push_and_pull(repository: Repository, tmp_path: Path) -> None:
    """A clone gets everything that was computed, without images of the data set, and without running a stage."""
    remote, clone = tmp_path / "remote", Repository(tmp_path / "clone")
    repository.run("dvc", "remote", "add", "--local", "--default", "--force", "team", str(remote))
    repository.run("dvc", "push", "--quiet")
    repository.git("add", "--all", ".")
    repository.git("rm", "-r", "--quiet", "--cached", "toy-images")
    repository.git("commit", "--quiet", "--message", "Computed")
    repository.git("clone", "--quiet", str(repository.folder), str(clone.folder))
    assert not (clone.folder / "data/toy").exists()
    assert not (clone.folder / "toy-images").exists()
    clone.run("dvc", "remote", "add", "--local", "--default", "team", str(remote))
    clone.run("dvc", "pull", "--quiet", "dvc.yaml")
    assert clone.artifacts("toy") == repository.artifacts("toy")
    assert (clone.folder / "data/toy/tiny/report/table.md").exists()
    summary = Path("data/summary/summary.md")
    assert (clone.folder / summary).read_bytes() == (repository.folder / summary).read_bytes()
    assert clone.stage("score", "--dataset", "toy", "--model", "tiny").returncode == 0
    assert clone.artifacts("toy") == repository.artifacts("toy")

    # Texts and views alone are enough to score again: no images, no weights, no key.
    light = Repository(tmp_path / "light")
    repository.git("clone", "--quiet", str(repository.folder), str(light.folder))
    shutil.rmtree(light.folder / "tiny-model")
    light.run("dvc", "remote", "add", "--local", "--default", "team", str(remote))
    light.run("dvc", "pull", "--quiet", "ingest", "crop", "refine", "embed")
    assert not (light.folder / "data/toy/tiny/predictions.parquet").exists()
    light.edit(_set("score", runs=4))
    assert set(light.repro("--allow-missing", "score", "report")) == light.stages("settings", "score", "report")
    assert json.loads((light.folder / "data/toy/tiny/metrics.json").read_text())["wca"]["runs"] == 4


def make_clones(repository: Repository, folder: Path, *names: str) -> Iterator[Repository]:
    """Clones with everything computed and a common remote."""
    repository.run("dvc", "remote", "add", "--local", "--default", "--force", "team", str(folder / "remote"))
    repository.git("add", "--all", ".")
    repository.git("commit", "--quiet", "--allow-empty", "--message", "Computed")
    for name in names:
        clone = Repository(folder / name)
        shutil.copytree(repository.folder, clone.folder)
        clone.git("config", "user.name", "Somebody")
        clone.git("config", "user.email", "somebody@example.org")
        yield clone


def test_two_clones_that_diverge_embed_nothing_twice(repository: Repository, tmp_path: Path) -> None:
    """One adds a model and a threshold, the other another threshold. Whichever dvc.lock stays, only what neither has
    embedded is embedded."""
    model, knob = make_clones(repository, tmp_path, "model", "knob")
    make_tiny_model(tmp_path / "second", seed=2)
    added = f"models:\n  second:\n    name: local-dir:{tmp_path / 'second'}\n"
    changes = (
        (model, {"models:\n": added, "  - 0.8\nembed:": "  - 0.8\n  - 0.9\nembed:"}),
        (knob, {"  iou_thresholds:\n": "  iou_thresholds:\n  - 0.5\n"}),
    )
    for clone, replaced in changes:
        params = clone.folder / "params.yaml"
        for old, new in replaced.items():
            params.write_text(params.read_text().replace(old, new))
        ran = clone.repro("refine", "embed")
        assert set(ran) & clone.stages("embed") and "ingest@toy" not in ran
        clone.run("dvc", "push", "--quiet")
        clone.git("commit", "--quiet", "--all", "--message", "Changed")

    pairs = [f"{stage} --dataset toy --model {name}" for name in ("tiny", "second") for stage in ("refine", "embed")]
    every_stage = ("python", "-c", ALL_IN_ONE_PROCESS, "settings --dataset toy", "crop --dataset toy", *pairs)
    merged = {}
    for side in ("--ours", "--theirs"):
        clone = Repository(tmp_path / f"merged{side}")
        shutil.copytree(knob.folder, clone.folder)
        conflict = clone.run("git", "pull", "--no-rebase", str(model.folder), check=False).stdout
        assert re.findall("CONFLICT.* in (.*)", conflict) == ["dvc.lock"]
        clone.git("checkout", side, "dvc.lock")
        assert re.search("[1-9][0-9]* files of MERGE_HEAD fetched", clone.stage("merge").stdout)
        # `dvc repro` for one side, and for the other what it would run, which is faster in one process.
        done = clone.run(*(("dvc", "repro", "refine", "embed") if side == "--ours" else every_stage)).stdout
        assert set(re.findall(r"(\d+) texts embedded", done)) == {"0"}
        views = dict(re.findall(r"embed toy (\w+): (\d+) views", done))
        merged[side] = clone.embedded("toy"), views.pop("second")
        assert set(views.values()) <= {"0"}
        assert not list(clone.folder.rglob(".old*"))
    assert merged["--ours"] == merged["--theirs"]
    boxes = pq.read_table(knob.folder / "data/toy/boxes.parquet", columns=["kept"])
    assert 0 < int(merged["--ours"][1]) < len(boxes) / 2, "the crops of the new threshold alone, with the whole images"
