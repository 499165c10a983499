"""Images without labels: every layout, every way to give classes, and all stages to the report."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import CLASSES, ROOT, Call, Project, make_image, make_project, run_stages
from PIL import Image

from stages.common.artifacts import CLASSES as CLASS_TABLE
from stages.common.responses import LogWriter
from stages.common.tables import read_meta
from stages.ingest.folders import imagenet_names

NAMES = ["Grey Heron", "blue tavo", "red-crowned tavo"]
PHOTOS = Path("data/photos")
SCORED = PHOTOS / "tiny"
ON_PHOTOS = ("--dataset", "photos", "--model", "tiny")


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set `toy`, and the same images as `photos` without labels and with its classes. Not to be changed."""
    made = make_project(tmp_path_factory.mktemp("unlabelled") / "project")
    made.edit(lambda params: params.update(precision="float32"))
    made.edit(with_photos)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        patch.setattr(sys, "argv", [])
        for dataset in ("toy", "photos"):
            run_stages(*(f"{stage} --dataset {dataset}" for stage in ("ingest", "describe", "crop")))
            note_who_wrote(Path("descriptions/toy/cupl.json"))
            run_stages(
                *(f"{stage} --dataset {dataset} --model tiny" for stage in ("refine", "embed", "score", "report"))
            )
    return made.folder


def note_who_wrote(path: Path) -> None:
    """As if `describe` had made it with a model that its server calls by a path."""
    with LogWriter(Path("data/toy/responses/cupl.jsonl")) as writer:
        writer.add_wrote(path, path.read_bytes(), "/home/somebody/models/writer-7b")


def with_photos(params: dict[str, Any]) -> None:
    params["datasets"]["photos"] = {"reader": "images", "root": "toy-images", "classes": "toy"}


@pytest.fixture
def copy(computed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    shutil.copytree(computed, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Project(tmp_path / "copy")


def test_predictions_are_those_of_the_same_images_with_labels(copy: Project) -> None:
    for name, key in (("predictions.parquet", ["method", "run"]), ("top5.parquet", ["method"])):
        with_labels, without = (pl.read_parquet(f"data/{dataset}/tiny/{name}") for dataset in ("toy", "photos"))
        assert without["label"].is_null().all() and len(without) > 9 * len(key)
        assert without.drop("label").equals(with_labels.drop("label"))
    people = pl.read_csv(SCORED / "predictions.csv")
    assert people["true_class"].is_null().all() and set(people["predicted"]) <= set(NAMES)
    assert pl.read_parquet(PHOTOS / "classes.parquet")["name"].to_list() == NAMES


def test_metrics_say_how_sure_the_methods_are_and_no_accuracy(copy: Project) -> None:
    best = pl.read_parquet(SCORED / "top5.parquet").filter(pl.col("method") == "bifta")
    found = json.loads((SCORED / "metrics.json").read_text())
    assert found["bifta"] == {
        "score": pytest.approx(best["scores"].list.get(0).mean(), abs=1e-5),
        "margin": pytest.approx((best["scores"].list.get(0) - best["scores"].list.get(1)).mean(), abs=1e-5),
        "agreement": pytest.approx(best["agreement"].mean(), abs=1e-5),
        "images": 9,
        "runs": 3,
    }
    assert json.loads((SCORED / "top1.json").read_text()) == {}


def test_a_second_run_of_scoring_gives_the_same_bytes(copy: Project, call: Call) -> None:
    before = {path.name: path.read_bytes() for path in SCORED.iterdir() if path.is_file()}
    assert call("score", *ON_PHOTOS).code == 0
    assert {path.name: path.read_bytes() for path in SCORED.iterdir() if path.is_file()} == before


def test_the_report_shows_classes_and_certainty(copy: Project, call: Call) -> None:
    done = call("report", *ON_PHOTOS)
    assert done.code == 0, done.err
    page = (SCORED / "report/table.md").read_text()
    assert done.out.startswith("photos with tiny: 9 images without labels\n")
    assert "top-1" not in page + done.out and "Without labels there are no accuracies" in page
    people = pl.read_csv(SCORED / "predictions.csv")
    for name, count in people["predicted"].value_counts().iter_rows():
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {name} ")]
        assert line.split("|")[2].strip() == str(count)
    least = people.sort("margin")["image"][0]
    first = page.split("## Least certain")[1].splitlines()[4]
    assert first.startswith(f"| {least} ")
    assert Image.open(SCORED / "report/evidence/00.png").size[0] > 1000
    assert call("report").out.count("9 images without labels") == 1
    html = (SCORED / "report/report.html").read_text()
    assert "<h1>photos with tiny: 9 images without labels</h1>" in html and "top-1" not in html.casefold()
    assert 'alt="Contact sheet' in html and f'dir="auto">{least}</th>' in html
    assert html.count("<img") == 3, "the contact sheet, and the boxes and the evidence of one image"


def test_every_file_that_dvc_expects_is_there(copy: Project) -> None:
    of_stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for stage in ("score", "report"):
        own = of_stage[stage]
        for out in [*own["outs"], *own.get("metrics", []), *own.get("plots", [])]:
            (path,) = out
            assert Path(path.replace("${item.dataset}", "photos").replace("${item.model}", "tiny")).exists(), path


def test_a_report_without_the_images_has_no_contact_sheet(copy: Project, call: Call) -> None:
    shutil.rmtree("toy-images")
    done = call("report", *ON_PHOTOS)
    assert done.code == 0 and "no contact sheet: the images under toy-images cannot be read" in done.err
    assert not list((SCORED / "report/evidence").iterdir())
    assert "<img" not in (SCORED / "report/report.html").read_text()


def test_descriptions_of_the_same_classes_are_copied_and_others_kept(copy: Project, call: Call) -> None:
    target = Path("descriptions/photos/cupl.json")
    assert target.read_bytes() == Path("descriptions/toy/cupl.json").read_bytes()
    target.write_text(json.dumps({name: ["mine"] for name in NAMES}))
    done = call("describe", "--dataset", "photos")
    assert "used as it is, 3 descriptions of 3 classes" in done.out and "copied" not in done.out
    target.unlink()
    Path("descriptions/prompts").mkdir()
    done = call("describe", "--estimate", "--dataset", "photos")
    assert done.code == 0, done.err
    assert not target.exists(), "an estimate writes nothing"


def test_one_image_and_one_class(copy: Project, call: Call) -> None:
    copy.edit(lambda params: params["datasets"]["photos"].update(root="one", classes=["blue tavo"]))
    make_image(Path("one/a.jpg"), 50, 40, 0)
    for name in ("cupl", "clip-d"):
        path = Path(f"descriptions/photos/{name}.json")
        path.write_text(json.dumps({"blue tavo": ["A bird.", "It is blue."]}))
    for stage, *on in (
        ("ingest",),
        ("refine", "tiny"),
        ("crop",),
        ("embed", "tiny"),
        ("score", "tiny"),
        ("report", "tiny"),
    ):
        done = call(stage, "--dataset", "photos", *(["--model", *on] if on else []))
        assert done.code == 0, done.err
    assert "1 image without labels" in done.out
    row = pl.read_csv(SCORED / "predictions.csv").row(0, named=True)
    assert (row["predicted"], row["margin"], row["runner_up"], row["agreement"]) == ("blue tavo", 0.0, None, 1.0)


def test_finer_refuses_a_data_set_without_labels(copy: Project, call: Call) -> None:
    copy.edit(lambda params: params["finer"].update(datasets={"photos": {}}, encoder="tiny"))
    done = call("finer.unify", "--dataset", "photos")
    assert done.code == 1
    assert "the images have no labels, which FINER needs; take 'photos' out of finer.datasets" in done.err


# Layouts


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (seed, 80, 120)).save(buffer, "JPEG")
    return buffer.getvalue()


def folder(root: Path) -> set[str]:
    for number, name in enumerate(("a.jpg", "trip/b.JPG", "trip/day 2/c.jpg", ".hidden/d.jpg")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(jpeg(number))
    return {"a.jpg", "trip/b.JPG", "trip/day 2/c.jpg"}


def table(root: Path) -> set[str]:
    folder(root)
    (root / "table.csv").write_text("image,place\na.jpg,lake\ntrip/b.JPG,\n")
    return {"a.jpg", "trip/b.JPG"}


def tar(root: Path) -> set[str]:
    with tarfile.open(root / "photos.tar", "w") as archive:
        for number, name in enumerate(("./a.jpg", "trip/a.jpg", "trip/a.png", "trip/a.cls", "._a.jpg")):
            data = jpeg(number) if name != "trip/a.cls" else b"3"
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return {"photos/a.jpg", "photos/trip/a.jpg", "photos/trip/a.png"}


def parquet(root: Path) -> set[str]:
    images = pa.array([{"bytes": jpeg(0), "path": "x.jpg"}, {"bytes": jpeg(1), "path": None}])
    pq.write_table(pa.table({"picture": images, "place": ["lake", None]}), root / "part.parquet")
    return {"part/000000.jpg", "part/000001.jpg"}


@pytest.mark.parametrize("layout", [folder, table, tar, parquet])
def test_every_layout_gives_images_without_labels(
    layout: Callable[[Path], set[str]], project: Project, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.folder)
    root = Path("photos")
    root.mkdir()
    wanted = layout(root)
    entry = {"reader": "images", "root": "photos", "classes": ["owl", "wren"]}
    if layout is table:
        entry["manifest"] = "table.csv"
    project.edit(lambda params: params["datasets"].update(photos=entry))
    done = call("ingest", "--dataset", "photos")
    assert done.code == 0, done.err
    assert f"ingest photos: {len(wanted)} images without labels, 2 classes" in done.out
    rows = pl.read_parquet(PHOTOS / "images.parquet")
    assert set(rows["image_id"]) == wanted and rows["label"].is_null().all()
    if layout in (tar, parquet):
        assert all((PHOTOS / "unpacked" / image_id).is_file() for image_id in wanted)
        shutil.rmtree(PHOTOS / "unpacked")
        assert call("ingest.unpack", "--dataset", "photos").code == 0
    assert (".cls" in done.out) == (layout is tar)


# Classes


def ingest(project: Project, call: Call, classes: Any, **more: Any) -> str:
    """Ingest `photos` with these classes; the error, or an empty text."""
    project.edit(
        lambda params: params["datasets"].update(
            photos={"reader": "images", "root": "toy-images", "classes": classes, **more}
        )
    )
    done = call("ingest", "--dataset", "photos")
    assert done.code == (1 if done.err else 0) and done.err.count("\n") <= 1
    return done.err


def names() -> list[str]:
    return pl.read_parquet(PHOTOS / "classes.parquet").sort("label")["name"].to_list()


def test_every_way_to_give_classes(project: Project, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)
    assert not ingest(project, call, ["wren", "great owl"])
    assert names() == ["wren", "great owl"], "in the order given"
    Path("toy-images/names.txt").write_text("\ufeffwren \n\n 白鷺\n", encoding="utf-8")
    assert not ingest(project, call, "names.txt")
    assert names() == ["wren", "白鷺"]
    assert not ingest(project, call, ["n01440764", "n01443537"])
    assert names() == imagenet_names(["n01440764", "n01443537"])
    assert not ingest(project, call, "imagenet")
    assert len(names()) == 1000 and names()[0] == "tench"
    assert not ingest(project, call, "cub")
    assert len(names()) == 200
    assert len(read_meta(PHOTOS / "classes.parquet", CLASS_TABLE).parameters.templates) == 1, "CUB's own"


def test_classes_of_another_data_set_come_with_its_templates_and_aliases(
    project: Project, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.folder)
    project.edit(
        lambda params: params["datasets"]["toy"].update(templates=["a {name}."], aliases={"blue tavo": "tavo"})
    )
    assert not ingest(project, call, "toy")
    before = read_meta(PHOTOS / "classes.parquet", CLASS_TABLE).parameters
    assert (names(), before.taken_from) == (NAMES, "toy")
    assert (before.templates, before.aliases) == (["a {name}."], {1: "tavo"})
    project.edit(lambda params: params["datasets"].update(again={**params["datasets"]["photos"], "classes": "photos"}))
    assert call("ingest", "--dataset", "again").code == 0
    assert pl.read_parquet("data/again/classes.parquet")["name"].to_list() == NAMES, "over one entry more"
    # Where the other data set's images are not here, its table says the same.
    assert call("ingest", "--dataset", "toy").code == 0
    shutil.copytree("toy-images", "photos")
    shutil.rmtree("toy-images")
    assert not ingest(project, call, "toy", root="photos")
    assert read_meta(PHOTOS / "classes.parquet", CLASS_TABLE).parameters == before
    Path("data/toy/classes.parquet").unlink()
    assert "the images of 'toy' are not in 'toy-images', and data/toy/classes.parquet is missing" in ingest(
        project, call, "toy", root="photos"
    )


@pytest.mark.parametrize(
    ("classes", "more", "said"),
    [
        (None, {}, "datasets.photos.classes is missing; images without labels need it"),
        ([], {}, "datasets.photos.classes has no name"),
        (["owl", " "], {}, "datasets.photos.classes has an empty name"),
        (["owl", "wren", "Owl"], {}, "lists a class more than once, in one or two spellings: 'owl', 'Owl'"),
        ("tyo", {}, "'tyo' is no data set of params.yaml (did you mean 'toy'?), and there is no file 'toy-images/tyo'"),
        ("photos", {}, "the classes of photos name each other"),
        (["owl"], {"names": ["owl"]}, "datasets.photos.names is not for the reader 'images'"),
        (["owl"], {"manifest": "no.csv"}, "no manifest 'toy-images/no.csv'"),
        (["owl"], {"root": "toy-images/blue tavo/0.jpg"}, "is a file; set root to the folder that holds it"),
        (["owl"], {"root": "tiny-model"}, "no images at any depth in 'tiny-model', and no *.tar or *.parquet"),
    ],
)
def test_mistakes_get_one_line(
    classes: Any, more: dict[str, Any], said: str, project: Project, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.folder)
    assert said in ingest(project, call, classes, **more)


def test_classes_are_for_images_alone(project: Project, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)
    project.edit(lambda params: params["datasets"]["toy"].update(classes=list(CLASSES)))
    done = call("ingest", "--dataset", "toy")
    assert done.err == "error: datasets.toy.classes is for the reader images, not 'folder'\n"
