"""What dvc.yaml lists of the code: each stage of FINER depends on every module that it imports."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

PLUMBING = {"cli", "errors", "finer_params", "params", "paths", "section", "settings", "__init__", "optional", "yamls"}
"""Modules that decide no result: command line, messages, the types of parameters, places of files."""

FILES = ("stages/finer/dvc.yaml", "stages/finer/tuning/dvc.yaml")


def stages() -> dict[str, dict]:
    found = {}
    for file in FILES:
        for name, stage in yaml.safe_load((ROOT / file).read_text())["stages"].items():
            found[name] = stage.get("do", stage)
    return found


def imported(module: str, seen: set[str]) -> set[str]:
    """Paths of the project's modules that `module` imports, wherever in it, and those that these import."""
    path = Path(*module.split(".")).with_suffix(".py")
    if module in seen or not (ROOT / path).exists():
        return seen
    seen.add(module)
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
    wanted = {f"{module.replace('.', '/')}.py" for module in imported(match[1], set())}
    wanted = {path for path in wanted if Path(path).stem not in PLUMBING}
    listed = {dep for dep in stage["deps"] if dep.startswith("stages/")}
    assert wanted - listed == set(), "not listed"
    assert listed - wanted == set(), "listed and not used"
