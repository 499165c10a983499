"""The page of `dvc plots show`: a name in the data shows as a name, and runs nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import test_report
import yaml
from dvc.render.match import match_defs_renderers
from dvc.repo import Repo
from dvc_render import render_html  # type: ignore[import-untyped]
from test_finer_promptings import figures
from test_report import make_inputs

from stages.common import paths
from stages.common.tables import write_plot
from stages.finer.paths import REPORT as FINER_REPORT
from stages.finer.report.results import Results
from stages.finer.report.write import write_report as write_finer_report
from stages.report.curves import CURVES, Point
from stages.report.write import write_report

ROOT = Path(__file__).parents[1]
RUNS = "document.title = 'it ran'"
HOSTILE = [
    f"red </script><script>{RUNS}</script> kite",
    f'<!--<script> \u2028 & {{plot_divs}} <img src=x onerror="{RUNS}">',
    "</SCRIPT >snow ‹goose›",
]
HARMLESS = ["red kite", "blue tavo", "snow goose"]
BROWSERS = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome", "chrome")
PAGE = """<!DOCTYPE html><html><head>{refresh_tag}<title>DVC Plot</title><script>
function vegaEmbed(place, spec) {
  const shown = document.createElement("pre");
  shown.textContent = JSON.stringify(spec.data.values);
  document.body.append(shown);
}
</script></head><body>{plot_divs}</body></html>"""
"""DVC's page, with a stand-in for the library that draws, which DVC fetches from the internet."""


@pytest.fixture(autouse=True)
def _in_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def plots_of(file: Path, stage: str) -> list[dict[str, Any]]:
    """The plots with data that a stage of a dvc.yaml declares, for the data set `birds` and the model `vit`."""
    text = file.read_text(encoding="utf-8").replace("${item.dataset}", "birds").replace("${item.model}", "vit")
    declared = yaml.safe_load(text)["stages"][stage]
    plots = [plot for plot in declared.get("do", declared)["plots"] if not next(iter(plot)).endswith(".png")]
    return [{path: {k: v for k, v in plot[path].items() if k != "persist"}} for plot in plots for path in plot]


def write_all(names: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Write all data of plots with these names in every place that a name reaches; returns how many plots there are."""
    monkeypatch.setattr(test_report, "NAMES", names)
    make_inputs()
    write_report("birds", "vit", 0, "photos")
    side = {"mean": 50.0, "low": 40.0, "high": 60.0, "std": 1.0, "runs": [50.0, 51.0]}
    probe: dict[str, Any] = {"model": names[0], "dataset": names[1], "before": side, "after": side, "difference": side}
    probe |= {"chance": 25.0, "images": {"train": 1, "test": 1}}
    monkeypatch.setattr("stages.finer.report.write.write_pictures", lambda *_: None)
    own = figures("plain")
    own |= {"attrseek_gain": {"fine": own["gap"]["plain"] | {"em_plain": 1.0, "em_attrseek": 2.0}}}
    own |= {"fine/image/plain/seen": own["fine/image/plain"]}
    write_finer_report(Results({name: {"birds": own} for name in names}, [probe], frozenset()))
    points = [Point("birds", "vit", "bifta", name, 50.0, 49.0, 51.0) for name in names]
    write_plot(CURVES / "refine.label_prompt.json", [point.row for point in points])

    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    declared += plots_of(ROOT / "dvc.yaml", "report") + plots_of(ROOT / "stages/finer/dvc.yaml", "report")
    declared = [plot for plot in declared if not {"boxes", "evidence"} & set(Path(next(iter(plot))).parts)]
    Path("dvc.yaml").write_text(yaml.safe_dump({"plots": declared}), encoding="utf-8")
    return len(declared)


def make_page(page: str | None = None) -> str:
    """The page as `dvc plots show` writes it."""
    with Repo.init(no_scm=True, force=True) as repo:
        shutil.copytree(ROOT / ".dvc/plots", ".dvc/plots", dirs_exist_ok=True)
        data = repo.plots.show()
        found = match_defs_renderers(data, out="dvc_plots", templates_dir=repo.plots.templates_dir)
    render_html([one.renderer for one in found], Path("dvc_plots/index.html"), page)
    return Path("dvc_plots/index.html").read_text(encoding="utf-8")


class Page(HTMLParser):
    """Tags of a page, and the contents of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script":
            self.scripts[-1] += data


def specs(page: Page) -> list[dict[str, Any]]:
    """What is drawn, from the scripts of the plots."""
    bodies = [text.strip() for text in page.scripts if "vegaEmbed('#" in text]
    return [json.JSONDecoder().raw_decode(body.removeprefix("var spec = "))[0] for body in bodies]


def test_a_name_starts_no_element_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    count = write_all(HARMLESS, monkeypatch)
    harmless = Page(make_page())
    assert len(specs(harmless)) == count == 10
    write_all(HOSTILE, monkeypatch)
    page = Page(make_page())
    assert page.tags == harmless.tags
    drawn = [json.dumps(spec["data"]["values"], ensure_ascii=False) for spec in specs(page)]
    assert not [text for text in drawn if "<" in text]
    shown = [json.dumps(name.replace("<", "‹"), ensure_ascii=False).strip('"') for name in HOSTILE]
    without = [spec["title"]["text"] for spec, text in zip(specs(page), drawn, strict=True) if shown[0] not in text]
    assert without == ["Methods on birds with vit"], "the only plot without a name that somebody else chose"
    assert sum(all(name in text for name in shown) for text in drawn) >= 7
    for table in (paths.report("birds", "vit") / "table.md", FINER_REPORT / "table.md"):
        assert "<" not in table.read_text(encoding="utf-8")


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="needs Chromium")
def test_a_name_runs_nothing_in_a_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    write_all(HOSTILE, monkeypatch)
    make_page(PAGE)
    title, shown = in_a_browser()
    assert title == "DVC Plot"
    assert [name.replace("<", "‹") for name in HOSTILE] == [row["class"] for row in sorted_classes(shown)]
    monkeypatch.setattr("stages.common.tables.write_page", lambda path, text: path.write_text(text, encoding="utf-8"))
    write_all(HOSTILE, monkeypatch)
    make_page(PAGE)
    assert in_a_browser()[0] == "it ran", "the browser runs what is not written so"


def sorted_classes(shown: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of the plot of classes, in the order of HOSTILE."""
    (rows,) = [rows for rows in shown if rows and "class" in rows[0]]
    order = [name.replace("<", "‹") for name in HOSTILE]
    return sorted(rows, key=lambda row: order.index(row["class"]))


def in_a_browser() -> tuple[str, list[list[dict[str, Any]]]]:
    """The title of the page after it was loaded, and the rows that each plot was given."""
    browser = next(filter(None, map(shutil.which, BROWSERS)))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]
    page = Path("dvc_plots/index.html").resolve().as_uri()
    profile = Path("profile").resolve()
    done = subprocess.run(
        [*command, f"--user-data-dir={profile}", page],
        capture_output=True, text=True, timeout=120, check=True, env=os.environ | {"HOME": str(profile.parent)},
    )  # fmt: skip
    title = done.stdout.split("<title>", 1)[1].split("</title>", 1)[0]
    return title, [json.loads(text) for text in Texts(done.stdout).found if text.startswith("[")]


class Texts(HTMLParser):
    """Contents of the `pre` elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag == "pre"
        if self.inside:
            self.found.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[-1] += data
