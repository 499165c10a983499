"""In an experiment's folder, which has only what git tracks, nothing is asked for and no user's file is replaced."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Call, Project
from describe_project import JSON, LOG, NAMES, make_project, run_here, write_prompts
from finer_project import make_labelled
from openai_server import KEY, Endpoint

from stages.common.check import warn_of_untracked
from stages.common.errors import UserError
from stages.common.experiments import untracked_descriptions, workspace

COPY = Path(".dvc/tmp/exps/standalone/tmp1")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's own folder, and in it an experiment's copy without its descriptions, which is the present folder."""
    make_project(tmp_path)
    (tmp_path / COPY).mkdir(parents=True)
    make_project(tmp_path / COPY)
    monkeypatch.chdir(tmp_path / COPY)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def give(folder: Path, text: str) -> None:
    (folder / JSON).parent.mkdir(parents=True, exist_ok=True)
    (folder / JSON).write_text(json.dumps({name: [text] for name in NAMES}))


def test_an_experiment_does_not_ask_for_what_git_does_not_track(project: Path, endpoint: Endpoint) -> None:
    give(project, "It is the user's.")
    with pytest.raises(
        UserError, match=r"parts\.json is not in this experiment's folder, .*`git add -f descriptions/demo`"
    ):
        run_here()
    (project / JSON).unlink()
    with pytest.raises(UserError, match=r"parts\.json is missing or out of date, .*run `dvc repro` and then `git add"):
        run_here()
    assert not endpoint.asked and not JSON.exists()
    give(Path(), "It is the user's.")  # as git brings it
    run_here()
    JSON.unlink()
    make_project(Path(), ask_in_experiments=True)
    run_here()
    assert set(endpoint.paid.values()) == {1} and JSON.exists()


def test_an_experiment_makes_from_the_log_what_the_stage_made_but_no_file_of_the_user_s(
    project: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    run_here()
    endpoint.forget()
    monkeypatch.chdir(project / COPY)
    LOG.parent.mkdir(parents=True)
    shutil.copy(project / LOG, LOG)  # as DVC brings it
    run_here()
    assert JSON.read_bytes() == (project / JSON).read_bytes()
    JSON.unlink()
    give(project, "It was edited.")
    with pytest.raises(UserError, match="because git does not track it"):
        run_here()
    give(Path(), "It was edited.")
    run_here()
    # A stage's own file is followed by its prompts, which an experiment may have changed.
    JSON.unlink()
    (project / JSON).unlink()
    run_here()
    write_prompts(Path(), "Which tail has {name}")
    with pytest.raises(UserError, match="missing or out of date"):
        run_here()
    assert not endpoint.asked


def test_without_git_nothing_is_untracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    give(tmp_path, "It is the user's.")
    assert untracked_descriptions() == []
    monkeypatch.setenv("PATH", "")
    assert untracked_descriptions() == []


def test_the_folder_of_an_experiment_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert workspace() is None
    for copy in (COPY, Path(".dvc/tmp/exps/tmp2/sub/project")):
        (tmp_path / copy).mkdir(parents=True)
        monkeypatch.chdir(tmp_path / copy)
        assert workspace() == tmp_path
    # DVC's temporary folder is on another disk.
    project = tmp_path / "project"
    (project / ".dvc").mkdir(parents=True)
    (project / ".dvc/tmp").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/exps/tmp3").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere/exps/tmp3")
    monkeypatch.setenv("DVC_ROOT", str(project))
    assert workspace() == project
    monkeypatch.chdir(project)
    assert workspace() is None


def test_concepts_are_not_asked_for_in_an_experiment(
    tmp_path: Path, call: Call, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from conftest import make_project as make_small_project

    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / COPY).parent.mkdir(parents=True)
    copy: Project = make_labelled(make_small_project(tmp_path / COPY))
    monkeypatch.chdir(copy.folder)
    assert call("ingest", "--dataset", "toy").code == 0
    assert call("finer.concepts", "--dataset", "toy").code == 0  # the files are there
    shutil.copytree("descriptions", tmp_path / "descriptions")
    for name in ("attributes.json", "finer.json"):
        kept = Path("descriptions/toy", name).rename(name)
        if name == "finer.json":  # which the user has edited
            (tmp_path / "descriptions/toy" / name).write_text("{}")
        done = call("finer.concepts", "--dataset", "toy")
        assert done.code == 1 and done.err.count("\n") == 1
        assert f"descriptions/toy/{name} is not in this experiment's folder" in done.err
        kept.rename(f"descriptions/toy/{name}")
    Path("descriptions/toy/attributes.json").unlink()
    endpoint.answer = lambda prompt: '{"required": ["red crown"], "likely": []}'
    copy.edit(lambda params: params["finer"]["concepts"].update(ask_in_experiments=True))
    assert call("finer.concepts", "--dataset", "toy").code == 0 and endpoint.asked


# With DVC and git themselves


STAGE = """
stages:
  describe:
    cmd: python -m stages.describe --dataset demo --source parts
    deps: [descriptions/prompts]
    params: [describe]
    outs:
    - descriptions/demo/parts.json: {cache: false, persist: true}
    - data/demo/responses/parts.jsonl: {persist: true}
"""


@pytest.fixture
def repository(tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in git and DVC with one stage, whose descriptions are the user's and not in git."""
    make_project(tmp_path)
    (tmp_path / "dvc.yaml").write_text(STAGE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "a")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@b")
    for command in ("git init -q", "dvc init -q", "git add -A", "git commit -qm start"):
        subprocess.run(command.split(), check=True, capture_output=True)
    (tmp_path / ".gitignore").write_text("/descriptions/demo/\n")
    give(tmp_path, "It is the user's.")
    return tmp_path


def test_what_the_messages_advise_lets_an_experiment_run(
    repository: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("descriptions/demo/.gitignore").write_text("x")
    warn_of_untracked()
    warned = capsys.readouterr().err
    assert f"git does not track {JSON}, which `dvc exp run --temp` and `--queue` need" in warned
    experiment = ["dvc", "exp", "run", "--temp", "-S", "describe.concurrency=2"]
    refused = subprocess.run(experiment, capture_output=True, text=True, check=False)
    [line] = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert "is not in this experiment's folder" in line and not endpoint.asked
    advised = [command for command in re.findall("`(.*?)`", line) if command.startswith("git")]
    for command in advised:
        subprocess.run(command.split(), check=True, capture_output=True)
    warn_of_untracked()
    assert capsys.readouterr().err == ""
    done = subprocess.run(experiment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not endpoint.asked and KEY not in done.stdout + done.stderr
