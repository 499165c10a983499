"""The Python API: what docs/python.md shows runs and gives what the pipeline computes; bad arguments are refused."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from conftest import ROOT, run_stages
from PIL import Image

import stages
from stages import api
from stages.common.artifacts import UNTRAINED

DEMO = Path("data/demo/demo-clip")
BIRD = "red-crowned_tavo/000.jpg"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The demo with one image a class, scored with each crop once; the present folder."""
    folder = tmp_path_factory.mktemp("demo")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["demo"]["images_per_class"] = 1
    params["score"].update(views_per_run="all", runs=1)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    shutil.copytree(ROOT / "descriptions" / "demo", folder / "descriptions" / "demo")
    shutil.copytree(ROOT / "stages" / "demo" / "model", folder / "stages" / "demo" / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", [])
        on_demo = [f"{stage} --dataset demo --model demo-clip" for stage in ("refine", "embed", "score")]
        run_stages("demo.birds", "ingest --dataset demo", "crop --dataset demo", *on_demo)
        yield folder


@pytest.fixture(scope="module")
def page(demo: Path) -> dict[str, Any]:
    """The names that the examples of docs/python.md define, run one after the other."""
    names: dict[str, Any] = {}
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(compile(block, "docs/python.md", "exec"), names)
    return names


def test_the_examples_classify_a_bird(page: dict[str, Any]) -> None:
    assert page["best"] == "red-crowned tavo"
    assert page["scores"].shape == (25,)


def test_cached_embeddings_give_the_pipelines_predictions(page: dict[str, Any]) -> None:
    rows = pl.read_parquet(DEMO / "predictions.parquet").filter(pl.col("method") == "bifta")
    assert page["predicted"] == dict(rows.select("image_id", "predicted").iter_rows())


def test_an_image_gets_the_crops_the_views_and_the_scores_of_the_pipeline(demo: Path) -> None:
    boxes = pl.read_parquet("data/demo/boxes.parquet").filter(pl.col("image_id") == BIRD)
    image = stages.open_image(f"data/demo/images/{BIRD}")
    drawn = stages.draw_crops(*image.size, image_id=BIRD)
    assert drawn.tolist() == boxes.select("left", "top", "right", "bottom").to_numpy().tolist()
    refined = boxes.filter(pl.col("kept").list.contains(pl.lit(0.8, pl.Float32)))
    assert stages.filter_crops(drawn).tolist() == drawn[refined["candidate"].to_numpy()].tolist()

    shard = pl.read_parquet(DEMO / "views" / "*.parquet").filter(pl.col("image_id") == BIRD)
    encoder = stages.load_encoder("local-dir:stages/demo/model")
    embedded = shard.filter(pl.col("candidate") >= 0)["candidate"].to_numpy()
    views = stages.embed_views(image, drawn[embedded], encoder)
    assert (views.embeddings == shard["embedding"].to_numpy()).all()
    assert (views.similarity == shard["similarity"].to_numpy()).all()

    rows = pl.read_parquet(DEMO / "texts.parquet").filter("kept").sort("label", maintain_order=True)
    texts = [
        stages.Texts(own["embedding"].to_numpy(), own["label_similarity"].to_numpy())
        for own in rows.partition_by("label")
    ]
    kept = np.isin(np.append(-1, embedded), refined["candidate"].to_numpy())
    scores = stages.align(views.take(kept), texts)
    row = pl.read_parquet(DEMO / "predictions.parquet").row(
        by_predicate=(pl.col("image_id") == BIRD) & (pl.col("method") == "bifta"), named=True
    )
    assert (int(scores.argmax()), scores.dtype) == (row["predicted"], np.float32)
    assert scores.max() == pytest.approx(row["score"], abs=1e-6)
    first, second = np.sort(scores)[:-3:-1]
    assert first - second == pytest.approx(row["margin"], abs=1e-6)


def test_descriptions_are_refined_as_the_pipeline_does(demo: Path) -> None:
    rows = pl.read_parquet(DEMO / "texts.parquet").filter((pl.col("label") == 3) & pl.col("kept").is_not_null())
    name = pl.read_parquet("data/demo/classes.parquet")["name"][3]
    encoder = stages.load_encoder("local-dir:stages/demo/model")
    own = stages.embed_descriptions({name: rows["description"].to_list()}, encoder)[name]
    assert own.embeddings == pytest.approx(rows["embedding"].to_numpy(), abs=1e-6)
    assert own.label_similarity == pytest.approx(rows["label_similarity"].to_numpy(), abs=1e-6)
    chosen = stages.select_descriptions(own.descriptions, own.embeddings, own.label_similarity, truncated=own.truncated)
    assert chosen.kept.tolist() == rows["kept"].to_list()
    assert chosen.dropped_because == rows["dropped_because"].to_list()
    assert 0 < chosen.kept.sum() < len(rows)


def unit(count: int, width: int = 4) -> np.ndarray:
    return np.eye(width, dtype=np.float32)[np.arange(count) % width]


TEXTS = stages.Texts(unit(2), np.zeros(2))
VIEWS = stages.Views(np.array([-1, 0]), np.ones(2), unit(2))
BOX = np.array([[0, 0, 5, 5]])
NO_ENCODER: Any = None  # refused before it is used
WRONG: Any = "gpu"


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (lambda: stages.draw_crops(0, 5), "at least one pixel, not 0 x 5"),
        (lambda: stages.draw_crops(5, 5, candidates=0), "candidates: .*greater than or equal to 1, not 0"),
        (lambda: stages.draw_crops(5, 5, min_scale=0.95), "min_scale must not be above max_scale"),
        (lambda: stages.filter_crops(np.zeros((3, 5), int)), r"must be \[N, 4\] integers .*not \[3, 5\] of int64"),
        (lambda: stages.filter_crops(np.zeros((3, 4))), r"not \[3, 4\] of float64"),
        (lambda: stages.filter_crops(BOX[:, ::-1]), r"box 0 \[5, 5, 0, 0\] has no pixels"),
        (lambda: stages.filter_crops(BOX, 80), "iou_threshold: .*less than or equal to 1, not 80"),
        (lambda: stages.select_descriptions(["a"], unit(2), np.zeros(2)), r"embeddings must be \[1, D\], not \[2, 4\]"),
        (lambda: stages.select_descriptions(["a"], 2 * unit(1), np.zeros(1)), "norm 1; that of row 0 is 2"),
        (lambda: stages.select_descriptions(["a"], unit(1), np.zeros((1, 1))), r"label_similarity must be \[1\], not"),
        (lambda: stages.select_descriptions("a", unit(1), np.zeros(1)), "not one string"),
        (lambda: stages.embed_views(np.zeros((4, 6, 3)), BOX, NO_ENCODER), r"uint8, not \[4, 6, 3\] of float64"),
        (lambda: stages.embed_views(np.zeros((4, 6, 3), np.uint8), BOX, NO_ENCODER), "box 0 .* the image of 6 x 4"),
        (lambda: stages.align(VIEWS, []), "list with the Texts of each class"),
        (lambda: stages.align(VIEWS, [TEXTS, TEXTS.take(np.zeros(2, bool))]), r"texts\[1\] has no rows"),
        (lambda: stages.align(VIEWS, [stages.Texts(unit(2, 3), np.zeros(2))]), r"are 3 wide, the views' are 4"),
        (lambda: stages.align(stages.Views(np.zeros(1), np.ones(2), unit(2)), [TEXTS]), r"\[1, D\], not \[2, 4\]"),
        (lambda: stages.align(VIEWS, [TEXTS], image_scale=800.0), "image_scale: .*less than or equal to 100"),
        (lambda: stages.load_encoder("x", device=WRONG), "device must be one of auto, cpu, cuda, not 'gpu'"),
        (lambda: stages.embed_descriptions({"x": []}, NO_ENCODER), r"descriptions\['x'\] must be a list of"),
        (lambda: stages.embed_descriptions({"x": ["a"]}, NO_ENCODER, "a bird"), r"label_prompt must contain \{name\}"),
    ],
)  # fmt: skip
def test_a_bad_argument_is_named(bad: Callable[[], object], expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as refused:
        bad()
    assert "\n" not in str(refused.value)


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(stages.UserError, match=r"encoder\.name 'ViT-B-33' is not a model .*did you mean 'ViT-B-32'"):
        stages.load_encoder("ViT-B-33")
    with pytest.raises(stages.UserError, match=r"none\.png' cannot be read"):
        stages.open_image(tmp_path / "none.png")


def test_random_weights_are_said_to_be_random(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = stages.load_encoder("local-dir:stages/demo/model")
    random = replace(trained, meta=trained.meta.model_copy(update={"pretrained": UNTRAINED}))
    monkeypatch.setattr(api, "load_model", lambda *_: random)
    with pytest.warns(UserWarning, match="ViT-B-32 has random weights; pass `pretrained`"):
        stages.load_encoder("ViT-B-32")


def test_a_turned_image_is_not_taken_as_it_lies(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "turned.jpg") as image, pytest.raises(ValueError, match=r"stages\.open_image"):
        stages.embed_views(image, BOX, NO_ENCODER)
    assert stages.open_image(tmp_path / "turned.jpg").size == (4, 8)


def test_the_package_lists_its_names() -> None:
    assert set(stages.__all__) <= set(dir(stages))
    assert all(getattr(stages, name) for name in stages.__all__)
    with pytest.raises(AttributeError, match="no attribute 'algin'"):
        stages.algin  # noqa: B018
