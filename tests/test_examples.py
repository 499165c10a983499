"""The examples of data/README.md run as they stand."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, make_project, run_stages

EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "data" / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project under the demo's names."""
    made = make_project(tmp_path_factory.mktemp("examples") / "project")

    def rename(params: dict[str, Any]) -> None:
        params["datasets"] = {"demo": params["datasets"]["toy"]}
        params["models"] = {"demo-clip": params["models"]["tiny"]}

    made.edit(rename)
    (made.folder / "descriptions" / "toy").rename(made.folder / "descriptions" / "demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        patch.setattr(sys, "argv", [])
        by_model = [f"{stage} --dataset demo --model demo-clip" for stage in ("refine", "embed", "score")]
        run_stages("ingest --dataset demo", "crop --dataset demo", *by_model)
    return made.folder


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: re.findall(r"import (\w+)", text)[-1])
def test_example_of_the_readme(
    example: str, computed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(computed)
    exec(compile(example, "data/README.md", "exec"), {})
    assert re.search(r"dropped_because|top1|iou_thresholds", capsys.readouterr().out)
