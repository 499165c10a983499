"""A method is declared once: a new one in `METHODS` is scored, listed and drawn without another word anywhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest
from conftest import ROOT, Call, Project, run_stages

from stages.common import methods
from stages.common.methods import KEPT, REFINED, WHOLE, Method
from stages.report import curve_plots
from stages.report.curves import Point

NEW = Method("new", WHOLE, KEPT, "weighted", "refined texts", "2601.00000", ("#123456", "--"))


def test_a_new_method_is_everywhere(
    project: Project, call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(methods, "METHODS", (*methods.METHODS, NEW))
    by_model = [f"{stage} --dataset toy --model tiny" for stage in ("refine", "embed", "score")]
    run_stages("ingest --dataset toy", "crop --dataset toy", *by_model)
    folder = Path("data/toy/tiny")
    assert "new" in pl.read_parquet(folder / "predictions.parquet")["method"].unique()
    assert json.loads((folder / "metrics.json").read_text())["new"]["images"] == 9
    done = call("report", "--dataset", "toy", "--model", "tiny")
    for text in (done.out, (folder / "report/table.md").read_text()):
        (line,) = [line for line in text.splitlines() if line.strip("| ").startswith("new ")]
        assert WHOLE in line and "refined texts" in line
    assert "new" in [row["method"] for row in json.loads((folder / "report/methods.json").read_text())]
    figure = curve_plots.draw([Point("toy", "tiny", "new", value, 50.0, 50.0, 50.0) for value in (0.6, 0.8)], "x")
    assert [line.get_color() for line in figure.axes[0].get_lines()][:1] == ["#123456"]


def test_every_method_has_a_row_in_the_documentation() -> None:
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    text = text.split("\n## With labels", 1)[0]  # after which those stand that are not zero-shot
    rows = re.findall(r"^\| `([\w-]+)` \|.*?\[([\d.]+)\]", text, re.MULTILINE)
    assert rows == [(method.name, method.paper) for method in methods.METHODS]


def test_the_methods_that_reports_compare_are_declared() -> None:
    assert methods.find(methods.FULL).views == REFINED
    assert {methods.PLAIN, methods.UNREFINED, methods.FULL} <= {method.name for method in methods.METHODS}
