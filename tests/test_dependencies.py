"""What dvc.yaml lists of the code: each stage depends on every module that it imports, and on no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

PLUMBING = {
    "check", "cli", "errors", "explain", "files", "interrupts", "locks", "params", "paths", "section", "settings",
    "__init__", "optional", "templates", "workers", "yamls",
}  # fmt: skip
"""Modules that decide no result: command line, messages, signals, the types of parameters, places of files, locks."""

OWN_FILES = {
    "settings": {"stages/common/settings.py"},  # here it is all that decides
}
"""Files of the code that a stage depends on beside what it imports."""

FILES = ("dvc.yaml", "stages/finer/dvc.yaml", "stages/finer/tuning/dvc.yaml")


def stages() -> dict[str, dict]:
    """Both pipelines have stages `score` and `report`."""
    found = {}
    for file in FILES:
        for name, stage in yaml.safe_load((ROOT / file).read_text())["stages"].items():
            found[f"{file}:{name}"] = stage.get("do", stage)
    return found


def imported(module: str, seen: set[str]) -> set[str]:
    """Paths of the project's modules that `module` imports, wherever in it, and those that these import."""
    path = Path(*module.split(".")).with_suffix(".py")
    if module in seen or not (ROOT / path).exists():
        return seen
    seen.add(module)
    if path.name in ("params.py", "check.py"):
        return seen  # what they import says what is allowed, and decides no result
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("stages."):
            for name in {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}:
                imported(name, seen)
        elif isinstance(node, ast.ImportFrom) and node.module == "stages":
            for alias in node.names:
                imported(f"stages.{alias.name}", seen)
    return seen


@pytest.mark.parametrize("name", sorted(stages()))
def test_a_stage_depends_on_all_the_code_that_it_runs(name: str) -> None:
    stage = stages()[name]
    match = re.search(r"python -m (\S+)", stage["cmd"])
    assert match
    found = imported(match[1], set()) | imported(f"{match[1]}.__main__", set())
    wanted = {f"{module.replace('.', '/')}.py" for module in found}
    wanted = {path for path in wanted if Path(path).stem not in PLUMBING} | OWN_FILES.get(
        name.rpartition(":")[2], set()
    )
    listed = {dep for dep in stage["deps"] if dep.startswith("stages/")}
    assert {path for path in wanted if not any(within(path, dep) for dep in listed)} == set(), "not listed"
    assert {dep for dep in listed if not any(within(path, dep) for path in wanted)} == set(), "listed and not used"


def within(path: str, dep: str) -> bool:
    return path == dep or path.startswith(f"{dep}/")


ROOMS = sorted(
    path.parent.relative_to(ROOT).as_posix()
    for path in (ROOT / "stages").rglob("__main__.py")
    if "demo" not in path.parts
)
"""Folders of the stages: of both pipelines, one folder a stage."""


ABOVE = ("stages/finer", "stages/share")
"""Commands above the stages, which may import them. No stage imports one of these."""


@pytest.mark.parametrize("room", [room for room in ROOMS if room not in ABOVE])
def test_no_stage_imports_another(room: str) -> None:
    """A stage imports itself, `common`, and in FINER what stands at the folder's top."""
    mine = {module for path in (ROOT / room).rglob("*.py") for module in imported(dotted(path), set())}
    others = {other for other in ROOMS if other not in (room, "stages/common") and not room.startswith(other)}
    assert {m for m in mine if any(within(m.replace(".", "/"), other) for other in others)} == set()
    assert not any(module.startswith("stages.demo") for module in mine)


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)
