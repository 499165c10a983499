"""What dvc.yaml lists of a stage, against what a recorded run of it read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from dvc.repo import Repo
from test_dependencies import PLUMBING

CODE = ("params.yaml", "stages/", ".git/", ".dvc/", "dvc.yaml")
"""What test_dependencies.py looks after."""

ELSEWHERE: dict[str, tuple[str, ...]] = {
    "images by their digests, in images.parquet or the unified files": (
        "embed data/demo/images", "report data/demo/images", "ask data/demo/images", "probe data/demo/images",
        "ask-endpoint data/demo/images", "tune data/demo/images",
        "embed datasets.demo.root", "report datasets.demo.root",
    ),
    "DVC does not watch the file behind a local checkpoint; the README says what to run": (
        "refine tiny-model", "embed tiny-model", "score tiny-model", "align tiny-model",
    ),
    "checkpoints by the hash of their weights, which the answers carry": ("probe data/finer/models",),
    "what a killed run left": ("tune data/finer/tune",),
    "text towers compute in float32 whatever it is": ("refine precision", "score precision", "align precision"),
    "texts are the same in batches of any size": ("align refine.batch_size",),
    "for the words of a line that is printed": ("score datasets.demo.sources",),
    "to see that the command line's key is one of them": (
        "ask finer.endpoints", "ask finer.served", "ask-endpoint finer.endpoints", "ask-endpoint finer.served",
    ),
    "for the values that params.yaml may have": tuple(
        f"{stage} stages/finer/promptings.py" for stage in ("concepts", "probe", "unify", "tune")
    ),
    "checked before anything is paid, and decides no result": (
        "ask stages/common/experiments.py", "ask-endpoint stages/common/experiments.py", "ask-endpoint tiny-model",
        "ask-endpoint models.tiny.activation", "ask-endpoint models.tiny.name", "ask-endpoint models.tiny.pretrained",
        "ask-endpoint stages/common/checkpoints.py", "ask-endpoint stages/common/tokenizer.py",
        "ask-endpoint stages/common/torchscript.py", "ask-endpoint datasets.demo.root", "ask-endpoint models",
        "ask-endpoint datasets",
    ),
    "it is in the name of the stage": ("align finer.encoder",),
}  # fmt: skip
"""Reason -> "stage file-or-parameter": what is read, and rightly not listed."""

NOT_NEEDED: dict[str, tuple[str, ...]] = {
    "read where the images have no labels": (
        "report data/demo/tiny/top5.parquet", "report data/demo/demo-clip/top5.parquet",
    ),
    "read where a description file is missing": (
        "describe data/demo/classes.parquet", "describe descriptions/prompts", "concepts datasets.demo.reader",
    ),
    "by them a stage notices other weights, or another image": (
        "probe data/finer/answers", "tune data/finer/unified",
    ),
}  # fmt: skip
"""Reason -> what is listed, and was not read in these runs."""


@dataclass
class Recorded:
    """A run of a stage: paths relative to the project."""

    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    params: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Listed:
    """A stage of a dvc.yaml."""

    name: str
    deps: set[str]
    outs: set[str]
    params: set[str]


def recorded(folder: Path, project: Path) -> dict[str, Recorded]:
    """Command of a stage -> what its processes recorded."""
    runs: dict[str, Recorded] = {}
    for path in folder.glob("*.tsv"):
        lines = [line.split("\t", 1) for line in path.read_text(errors="surrogateescape").splitlines()]
        run = runs.setdefault(lines[0][1], Recorded())
        for kind, name in lines[1:]:
            if kind == "param":
                run.params.add(name)
            elif Path(name).is_relative_to(project):
                below = Path(name).relative_to(project).as_posix()
                (run.written if kind == "write" else run.read).add(below)
    return runs


def listed(project: Path) -> dict[str, Listed]:
    """Command -> the stage, of every dvc.yaml of the project."""
    found = {}
    with Repo(str(project)) as repo:
        for stage in repo.index.stages:
            relative = [
                {Path(str(item.fs_path)).relative_to(project).as_posix() for item in items if hasattr(item, "fs_path")}
                for items in ((dep for dep in stage.deps if not hasattr(dep, "params")), stage.outs)
            ]
            params = {key for dep in stage.deps if hasattr(dep, "params") for key in dep.params}
            found[stage.cmd] = Listed(
                f"{Path(stage.path).relative_to(project)}:{stage.name}", relative[0], relative[1], params
            )
    return found


def within(path: str, folders: set[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def excepted(stage: Listed, name: str, table: dict[str, tuple[str, ...]]) -> bool:
    kind = stage.name.rpartition(":")[2].partition("@")[0]
    cases = [case.split(" ", 1) for cases in table.values() for case in cases]
    return any(kind == of and (within(name, {what}) or name == what) for of, what in cases)


def unlisted_files(stage: Listed, run: Recorded) -> set[str]:
    """Files that were read, and are neither among the deps nor made by the stage itself."""
    read = {path for path in run.read - run.written if not path.startswith(CODE)}
    return {path for path in read if not within(path, stage.deps | stage.outs) and not excepted(stage, path, ELSEWHERE)}


def unread_deps(stage: Listed, run: Recorded) -> set[str]:
    """Data among the deps of which nothing was read."""
    data = {dep for dep in stage.deps if not dep.startswith("stages/")}
    return {
        dep
        for dep in data
        if not any(within(path, {dep}) for path in run.read) and not excepted(stage, dep, NOT_NEEDED)
    }


def covered(stage: Listed) -> set[str]:
    """Parameters that the stage depends on, directly or by a settings file."""
    found = set(stage.params)
    for dep in stage.deps:
        place = Path(dep)
        if place.parent.name == "settings":
            found.add(f"datasets.{place.parent.parent.name}" if place.stem == "dataset" else place.stem)
    return found


def unlisted_params(stage: Listed, run: Recorded) -> set[str]:
    known = covered(stage)
    return {
        name
        for name in run.params
        if not any(name == key or name.startswith(f"{key}.") for key in known) and not excepted(stage, name, ELSEWHERE)
    }


def unread_params(stage: Listed, run: Recorded) -> set[str]:
    """Listed parameters of which nothing was read: neither the key, nor something above or below it."""
    return {
        key
        for key in stage.params
        if not any(name == key or name.startswith(f"{key}.") or key.startswith(f"{name}.") for name in run.params)
        and not excepted(stage, key, NOT_NEEDED)
    }


def unlisted_code(stage: Listed, run: Recorded) -> set[str]:
    """Modules of the project that were loaded, apart from those that decide no result."""
    loaded = {
        re.sub(r"__pycache__/(\w+)\.[\w-]+\.pyc$", r"\1.py", path) for path in run.read if path.startswith("stages/")
    }
    modules = {path for path in loaded if path.endswith(".py") and Path(path).stem not in PLUMBING}
    return {path for path in modules if not within(path, stage.deps) and not excepted(stage, path, ELSEWHERE)}
