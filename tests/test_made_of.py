"""What a report says made it, and the figures that it leaves for the summary."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from artifact_files import read_raw, write_raw
from conftest import Call, Project
from test_unlabelled import computed  # noqa: F401

from stages.common import methods, paths
from stages.common.artifacts import PREDICTIONS, TEXTS, PredictionsParameters, SourceFile
from stages.common.tables import read_meta
from stages.report import made_of
from stages.report.rows import read_row

TOY = ("--dataset", "toy", "--model", "tiny")
CUPL = Path("descriptions/toy/cupl.json")


@pytest.fixture
def copy(computed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:  # noqa: F811
    """A labelled data set `toy`, and `photos`, the same images without labels, with everything computed."""
    shutil.copytree(computed, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Project(tmp_path / "copy")


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@pytest.mark.parametrize("dataset", ["toy", "photos"])
def test_tables_and_row_name_the_files_as_they_were(copy: Project, call: Call, dataset: str) -> None:
    folder, row = Path(f"data/{dataset}/tiny"), paths.summary_row(dataset, "tiny")
    cupl, clip_d = (hash_of(Path(f"descriptions/toy/{source}.json")) for source in ("cupl", "clip-d"))
    sentences = sum(map(len, json.loads(CUPL.read_text()).values()))
    before = row.read_bytes()
    for path in Path("descriptions").glob("*/cupl.json"):
        path.write_text(json.dumps({"Grey Heron": ["changed since"]}))
    done = call("report", "--dataset", dataset, "--model", "tiny")
    page = (folder / "report/table.md").read_text()
    assert f"| cupl     | `descriptions/{dataset}/cupl.json`   | `{cupl}`" in page
    assert "writer-7b" in page and "/home/" not in page
    assert f"Scoring version {methods.SCORING}." in page and f"scoring {methods.SCORING}; " in done.out
    (line,) = [line.split() for line in done.out.splitlines() if line.startswith("  cupl ")]
    assert line == ["cupl", cupl, str(sentences), "writer-7b"]
    (line,) = [line.split() for line in done.out.splitlines() if line.startswith("  clip-d ")]
    assert line[1] == clip_d and line[3] == "unknown"
    assert row.read_bytes() == before


def test_the_row_has_the_figures_of_the_metrics(copy: Project) -> None:
    found, metrics = (
        read_row(paths.summary_row("toy", "tiny")),
        json.loads(Path("data/toy/tiny/metrics.json").read_text()),
    )
    assert (found.dataset, found.model, found.labelled, found.demo, found.images, found.classes) == (
        "toy", "tiny", True, False, 9, 3,
    )  # fmt: skip
    assert (found.seed, found.scoring, found.reference) == (0, methods.SCORING, "wca")
    for method, figures in metrics.items():
        if isinstance(figures, dict):
            own = found.methods[method].model_dump()
            difference = own.pop("difference")
            assert own == {key: value for key, value in figures.items() if key != "images"}
            assert (difference is None) == (method == "wca")
            if difference:
                apart = figures["top1"] - metrics["wca"]["top1"]
                assert difference["points"] == pytest.approx(apart, abs=2e-4)
    assert [source.name for source in found.sources] == ["cupl", "clip-d"], "as in params.yaml"
    without = read_row(paths.summary_row("photos", "tiny"))
    assert not without.labelled and without.methods == {} and without.reference is None and without.images == 9
    assert without.encoder == found.encoder == read_meta(Path("data/toy/tiny/predictions.parquet"), PREDICTIONS).model


def test_a_lost_log_does_not_change_who_wrote_a_file(copy: Project, call: Call) -> None:
    texts = Path("data/toy/tiny/texts.parquet")
    before = texts.read_bytes()
    shutil.rmtree("data/toy/responses")
    assert call("refine", *TOY).code == 0
    assert texts.read_bytes() == before
    CUPL.write_text(CUPL.read_text() + "\n")
    assert call("refine", *TOY).code == 0
    cupl, _ = read_meta(texts, TEXTS).parameters.files
    assert cupl == SourceFile(name="cupl", sha256=hash_of(CUPL), origin=None, sentences=24), "another file"


def test_texts_of_an_earlier_version_are_scored_and_reported(copy: Project, call: Call) -> None:
    path = Path("data/toy/tiny/texts.parquet")
    table, meta = read_raw(path)
    del meta["parameters"]["files"]
    write_raw(path, table, meta)
    assert call("score", *TOY).code == 0
    done = call("report", *TOY)
    assert done.code == 0 and f"scoring {methods.SCORING}\n" in done.out
    assert read_row(paths.summary_row("toy", "tiny")).sources == []


def test_predictions_of_an_earlier_version_are_read_and_said_to_be_such() -> None:
    assert made_of.plain(PredictionsParameters()) == [made_of.EARLIER]
    assert made_of.EARLIER in made_of.markdown("toy", PredictionsParameters())
    assert made_of.plain(None) == []
    odd = [SourceFile(name="cupl", sha256="0" * 16, origin="a | b\nc", sentences=3)]
    lines = made_of.markdown("toy", PredictionsParameters(scoring="1", files=odd))
    assert "| a \\| b c " in lines[-1]
