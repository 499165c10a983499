"""docs/reproduce.md: its entries load, its changes fit them, and its commands name stages and parameters that exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from dvc.cli import parse_args
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps

from stages.common.check import check_models, check_prompts, check_roots
from stages.common.params import Crop, Params, load_params
from stages.report.curves import check_param, flatten, value_for

PAGE = (ROOT / "docs/reproduce.md").read_text(encoding="utf-8")
PRESETS: dict[str, Any] = yaml.safe_load((ROOT / "docs/presets.yaml").read_text(encoding="utf-8"))
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@dataclass(frozen=True)
class Table:
    """A section of the page."""

    title: str
    text: str

    def listed(self, head: str) -> list[str]:
        """The names in code marks on the line that begins with `head`."""
        return re.findall(r"`([^`]+)`", re.findall(rf"^- \*\*{head}:\*\*(.*)$", self.text, re.MULTILINE)[0])

    def change(self) -> dict[str, Any]:
        """What the section says to change in params.yaml."""
        merged: dict[str, Any] = {}
        for block in re.findall(r"```yaml\n(.*?)```", self.text, re.DOTALL):
            merged |= yaml.safe_load(block)
        return merged

    def commands(self) -> list[list[str]]:
        """Every command of the section, as words."""
        blocks = re.findall(r"```sh\n(.*?)```", self.text, re.DOTALL)
        return [shlex.split(part) for block in blocks for line in block.splitlines() for part in line.split(" && ")]


TABLES = [Table(*section.split("\n", 1)) for section in PAGE.split("\n## ") if "- **Data sets:**" in section]


@pytest.fixture(params=TABLES, ids=lambda table: table.title)
def table(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    """A section, in a project whose params.yaml is as the section says; roots are empty folders."""
    found: Table = request.param
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    shutil.copytree(ROOT / "descriptions/prompts", tmp_path / "descriptions/prompts")
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["models"] = {key: PRESETS["models"][key] for key in found.listed("Models")}
    params["datasets"] = {}
    for key in found.listed("Data sets"):
        params["datasets"][key] = {**PRESETS["datasets"][key], "root": f"roots/{key}"}
        Path(f"roots/{key}").mkdir(parents=True)
    for section, change in found.change().items():
        if section == "datasets":
            for key, own in change.items():
                params["datasets"][key] |= own
        elif section == "sources":
            params["sources"] = change
        else:
            params[section] |= change
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    return found


def test_the_table_of_tables_links_to_every_section() -> None:
    """And to nothing else."""
    anchors = re.findall(r"^\| \[[^]]+\]\(#([^)]+)\)", PAGE, re.MULTILINE)
    assert anchors == [re.sub(r"[^a-z0-9 -]", "", table.title.lower()).replace(" ", "-") for table in TABLES]
    assert len(TABLES) == 11


def test_the_pages_modules_exist() -> None:
    modules = set(re.findall(r"python -m ([\w.]+)", PAGE))
    assert modules >= {"stages.describe", "stages.report.curves"}
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


def test_costs_are_what_their_formulas_say() -> None:
    """With the page's rates. Views are a measured mean where there are more candidates than max_views."""
    rate, size = (
        float(re.findall(pattern, PAGE)[0]) for pattern in (r"/ ([\d.]+) views a second", r"([\d.]+) bytes for")
    )
    rows = re.findall(r"^\| (`.*`) \| ([\d,]+) \| (about )?(\d+) \| ([\d.]+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    of_entries = {key: row for row in rows for key in re.findall(r"`([^`]+)`", row[0])}
    assert of_entries.keys() == PRESETS["datasets"].keys()
    for key, (_, images, about, views, hours, gigabytes) in of_entries.items():
        crop = Crop(**PRESETS["datasets"][key]["crop"])
        embedded = int(images.replace(",", "")) * int(views)
        assert (hours, gigabytes) == (f"{embedded / rate / 3600:.1f}", f"{embedded * size / 1e9:.1f}")
        assert bool(about) == (crop.candidates > crop.max_views)
        assert about or int(views) == crop.candidates + 1


def test_entries_load_and_name_the_files_that_are_read(table: Table) -> None:
    params = load_params()
    check_models(params)
    check_prompts(params)
    check_roots(params)
    read: set[str] = set()
    for key in params.datasets:
        of_dataset = params.for_dataset(key)
        assert set(of_dataset.refined_sources()) <= set(of_dataset.sources)
        read |= set(of_dataset.sources)
    assert read == set(table.listed("Files")), "no file is missing that an LLM would be asked for"


def test_commands_name_stages_and_parameters_that_exist(table: Table) -> None:
    params, commands = load_params(), table.commands()
    assert commands
    varied = set()
    for words in commands:
        if words[0] == "dvc":
            asked = parse_args(words[1:])  # refuses what DVC would refuse
            assert words[1:3] in (["repro", "summary"], ["exp", "run"], ["queue", "start"])
            assert set(getattr(asked, "targets", [])) <= {"summary"}
            overrides = getattr(asked, "set_param", [])
            varied |= {override.split("=")[0] for override in overrides}
            check_values(overrides)
        else:
            assert words[:4] == ["python", "-m", "stages.report.curves", "--param"]
            check_param(words[4])
            assert applies(params, words[4])
            assert words[4] in varied, "the experiments before it vary this parameter"


def check_values(overrides: list[str]) -> None:
    """Each combination of the values gives parameters that are allowed."""
    original = Path("params.yaml").read_text(encoding="utf-8")
    for sweep in get_hydra_sweeps({"params.yaml": overrides}) if overrides else []:
        apply_overrides("params.yaml", sweep["params.yaml"])
        load_params()
        Path("params.yaml").write_text(original, encoding="utf-8")


def applies(params: Params, param: str) -> bool:
    """Whether the curve of `param` has points, that is, no data set overrides it."""
    flat = flatten(yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8")))
    return any(value_for(flat, param, key) is not None for key in params.datasets)


def test_the_summary_needs_every_data_set_and_model(table: Table, tmp_path: Path) -> None:
    """DVC resolves the command to all stages of all entries. `dvc repro --dry` needs files that earlier stages make."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n", encoding="utf-8")
    params = load_params()
    with Repo(str(tmp_path)) as repo:
        needed = {stage.addressing for stage in repo.stage.collect("summary", with_deps=True)}
    for key in params.datasets:
        assert {f"{stage}@{key}" for stage in ("settings", "ingest", "describe", "crop")} <= needed
        for model in params.models:
            assert {f"{stage}@{key}-{model}" for stage in ("refine", "embed", "score", "report")} <= needed
