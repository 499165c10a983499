"""Classifying files with the texts of a data set: the same as the pipeline, from the command line and from Python."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from pathlib import Path

import polars as pl
import pytest
from conftest import Call, Project, make_image, make_project, run_stages

import stages

TINY = Path("data/toy/tiny")
WITH_TOY = ("--dataset", "toy", "--model", "tiny")


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set `toy`, scored. Not to be changed."""
    made = make_project(tmp_path_factory.mktemp("predict") / "project")
    made.edit(lambda params: params.update(precision="float32", seed=3))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        patch.setattr(sys, "argv", [])
        of_model = [f"{stage} --dataset toy --model tiny" for stage in ("refine", "embed", "score")]
        run_stages("ingest --dataset toy", "crop --dataset toy", *of_model)
    return made.folder


@pytest.fixture
def copy(computed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    shutil.copytree(computed, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Project(tmp_path / "copy")


@pytest.mark.parametrize("method", ["clip", "wca", "bifta-views", "bifta"])
def test_images_get_the_predictions_of_the_pipeline(method: str, copy: Project, tmp_path: Path) -> None:
    shutil.copytree("toy-images", tmp_path / "elsewhere")
    wanted = pl.read_parquet(TINY / "top5.parquet").filter(pl.col("method") == method).to_dicts()
    names = pl.read_parquet("data/toy/classes.parquet")["name"].to_list()
    classifier = stages.load_classifier("toy", "tiny", method)
    for folder in (None, tmp_path / "elsewhere"):
        files = [(folder or Path("toy-images")) / row["image_id"] for row in wanted]
        found = list(classifier.classify(files, folder))
        assert [(own.image, own.image_id) for own in found] == [
            (str(file), row["image_id"]) for file, row in zip(files, wanted, strict=True)
        ]
        for own, row in zip(found, wanted, strict=True):
            assert own.classes == [names[label] for label in row["classes"]]
            assert own.scores == pytest.approx(row["scores"], abs=1e-5)
            assert own.margin == pytest.approx(row["scores"][0] - row["scores"][1], abs=1e-5)
            assert (own.agreement, own.method) == (pytest.approx(row["agreement"], abs=1e-4), method)


def test_the_command_prints_a_table_and_changes_nothing(copy: Project, call: Call) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    done = call("predict", "toy-images", *WITH_TOY)
    assert done.code == 0, done.err
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before
    head, *lines = done.out.splitlines()
    assert head.split() == ["image", "predicted", "score", "margin", "runner-up", "agreement"]
    people = list(csv.DictReader((TINY / "predictions.csv").open()))
    assert len(lines) == len(people) == 9
    for line, row in zip(lines, people, strict=True):
        assert line.startswith(f"toy-images/{row['image']} ") and f" {row['predicted']} " in line


def test_csv_and_json_say_the_same(copy: Project, call: Call) -> None:
    images = ("toy-images/blue tavo/0.jpg", "toy-images/Grey_Heron")
    as_csv = call("predict", *images, *WITH_TOY, "--csv").out
    rows = list(csv.DictReader(io.StringIO(as_csv)))
    assert list(rows[0]) == (TINY / "predictions.csv").read_text().splitlines()[0].split(",")
    objects = json.loads(call("predict", *images, *WITH_TOY, "--json").out)
    assert [row["image"] for row in rows] == [images[0], *(f"{images[1]}/{number}.jpg" for number in range(3))]
    for row, own in zip(rows, objects, strict=True):
        assert own["image_id"] == row["image"].removeprefix("toy-images/")
        assert [own["predicted"], own["runner_up"]] == [best["class"] for best in own["best"]][:2]
        assert (row["predicted"], float(row["score"])) == (own["predicted"], own["score"])
    done = call("predict", *images, *WITH_TOY, "--csv", "out/x.csv", "--json", "x.json")
    assert Path("out/x.csv").read_text() == as_csv and json.loads(Path("x.json").read_text()) == objects
    assert done.out.startswith("image "), "the table too"


def test_settings_of_the_data_set_count(copy: Project, call: Call) -> None:
    copy.edit(lambda params: params["datasets"]["toy"].update(score={"csv_method": "cupl"}))
    rows = json.loads(call("predict", "toy-images/blue tavo/0.jpg", *WITH_TOY, "--json").out)
    assert rows[0]["method"] == "cupl"


def test_a_file_from_anywhere(copy: Project, tmp_path: Path) -> None:
    make_image(tmp_path / "x" / "bird.png", 60, 40, 5)
    shutil.copytree(tmp_path / "x", tmp_path / "y")
    classifier = stages.load_classifier("toy", "tiny")
    first, second = classifier.classify([tmp_path / "x/bird.png", tmp_path / "y/bird.png"])
    assert first.image_id == second.image_id == "bird.png"
    assert (first.predicted, first.scores) == (second.predicted, second.scores)
    Path("link").symlink_to("toy-images")
    assert classifier.image_id(Path("link/blue tavo/0.jpg")) == "blue tavo/0.jpg"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no.jpg", *WITH_TOY), "no file or folder 'no.jpg'"),
        (("tiny-model", *WITH_TOY), "no images below 'tiny-model'"),
        (("params.yaml", *WITH_TOY), "image 'params.yaml' cannot be read (not an image)"),
        (("toy-images", *WITH_TOY, "--method", "bitfa"), "method 'bitfa' is no method (did you mean 'bifta'?)"),
        (("toy-images", "--dataset", "tyo", "--model", "tiny"), "no 'tyo' under datasets (did you mean 'toy'?)"),
        (("toy-images", *WITH_TOY, "--csv", "a.jpg"), "--csv takes a file that ends in .csv, not 'a.jpg'"),
        (("toy-images", *WITH_TOY, "--csv", "--json"), "cannot both go to the terminal"),
    ],
)
def test_mistakes_get_one_line(arguments: tuple[str, ...], said: str, copy: Project, call: Call) -> None:
    done = call("predict", *arguments)
    assert done.code == 1 and done.err.count("\n") == 1 and said in done.err


def test_what_does_not_fit_is_refused(copy: Project, call: Call) -> None:
    one = ("toy-images/blue tavo/0.jpg", *WITH_TOY)
    copy.edit(lambda params: params["models"].update(other={"name": "local-dir:tiny-model", "activation": None}))
    done = call("predict", one[0], "--dataset", "toy", "--model", "other")
    assert "data/toy/other/texts.parquet is missing" in done.err
    shutil.copytree(TINY, "data/toy/other")
    copy.edit(lambda params: params["models"]["other"].update(preprocess={"interpolation": "bilinear"}))
    done = call("predict", one[0], "--dataset", "toy", "--model", "other")
    assert done.code == 1 and "params.yaml: models.other do not belong together" in done.err
    copy.edit(lambda params: params["sources"].pop("clip-d"))
    assert call("refine", *WITH_TOY).code == 0
    done = call("predict", *one, "--method", "clip-d")
    assert "data/toy/tiny/texts.parquet has no texts for the method 'clip-d'; it has those of: clip, clip-e" in done.err
    assert done.err.endswith("; give one of them as --method\n")


def test_unreadable_images_are_skipped_where_the_settings_say_so(copy: Project, call: Call) -> None:
    Path("toy-images/blue tavo/1.jpg").write_bytes(b"no image")
    done = call("predict", "toy-images", *WITH_TOY)
    assert done.code == 1 and "image 'toy-images/blue tavo/1.jpg' cannot be read (not an image)" in done.err
    copy.edit(lambda params: params["ingest"].update(on_bad_image="skip"))
    done = call("predict", "toy-images", *WITH_TOY)
    assert done.code == 0 and len(done.out.splitlines()) == 1 + 8
    assert "warning: image 'toy-images/blue tavo/1.jpg' cannot be read" in done.err
