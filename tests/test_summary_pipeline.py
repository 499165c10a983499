"""The stage `summary` of the real dvc.yaml, behind stages that write one row each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Project
from test_pipeline import RUNNING
from test_summary import figures, row

from stages.report.rows import SummaryRow

pytestmark = pytest.mark.pipeline

WRITE = """
import json, sys
from stages.report.rows import SummaryRow, write_row
write_row(SummaryRow.model_validate(json.load(open(sys.argv[1]))))
"""


def put(project: Project, content: SummaryRow) -> None:
    """What the stand-in for `report` writes."""
    path = project.folder / f"figures-{content.dataset}.json"
    path.write_text(json.dumps(content.model_dump(mode="json")))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "project")
    (made.folder / ".dvc").mkdir(parents=True)
    for name in (".dvc/config", ".gitignore", ".dvcignore", "params.yaml"):
        shutil.copy(ROOT / name, made.folder / name)
    shutil.copytree(ROOT / "stages", made.folder / "stages", ignore=shutil.ignore_patterns("__pycache__", "finer"))
    entries = {key: {"reader": "folder", "root": key} for key in ("birds", "cars")}
    made.edit(lambda params: params.update(datasets=entries, models={"vit": {"name": "ViT-B-32"}}))
    (made.folder / "write.py").write_text(WRITE)
    report = {
        "matrix": {"dataset": "${datasets}", "model": "${models}"},
        "cmd": "python write.py figures-${item.dataset}.json",
        "deps": ["figures-${item.dataset}.json"],
        "outs": [{"data/summary/rows/${item.dataset}-${item.model}.json": {"persist": True}}],
    }
    summary = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["summary"]
    (made.folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"report": report, "summary": summary}}))
    for key in entries:
        put(made, row(key, "vit", clip=figures(60), wca=figures(61)))
    made.run("git", "init", "--quiet")
    return made


def test_one_changed_data_set_runs_its_report_and_the_summary(project: Project) -> None:
    def ran() -> list[str]:
        return RUNNING.findall(project.run("dvc", "repro").stdout)

    def table() -> str:
        return (project.folder / "data/summary/summary.md").read_text()

    assert set(ran()) == {"report@birds-vit", "report@cars-vit", "summary"}
    put(project, row("cars", "vit", clip=figures(60), wca=figures(77)))
    assert ran() == ["report@cars-vit", "summary"]
    assert "**77.00**" in table()
    # Another root, or a removed data set, makes no report again.
    project.edit(lambda params: params["datasets"].pop("cars"))
    assert ran() == ["summary"]
    assert "77.00" not in table() and "birds" in table()
