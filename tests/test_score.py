"""score: predictions, metrics and refusals of a whole small data set."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import polars as pl
import pyarrow as pa
import pytest
from artifact_files import read_raw, write_raw
from conftest import TINY_CONFIG, Call, Project, make_image, make_project, make_tiny_model, run_stages

from stages.common import artifacts
from stages.common.alignment import draw_places
from stages.common.checks import check_top5
from stages.common.encoders import UNTRAINED
from stages.common.errors import UserError
from stages.common.labels import read_classes, read_labels
from stages.common.predictions import open_predictions, read_best
from stages.common.tables import read_meta

Meta = dict[str, Any]

DATA = Path("data/toy")
TINY = DATA / "tiny"
TEXTS, VIEWS, BOXES, IMAGES = TINY / "texts.parquet", TINY / "views", DATA / "boxes.parquet", DATA / "images.parquet"
PREDICTIONS, METRICS = TINY / "predictions.parquet", TINY / "metrics.json"
TOP5, PEOPLE = TINY / "top5.parquet", TINY / "predictions.csv"
OUTPUTS = (PREDICTIONS, TOP5, PEOPLE, METRICS)
METHODS = ["clip", "clip-e", "clip-d", "waffle", "cupl", "wca", "bifta-views", "bifta-texts", "bifta"]
KEYS = ["top1", "top5", "mean_per_class", "std", "images", "runs"]
ON_TINY = ("--dataset", "toy", "--model", "tiny")


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with everything scored: nine images, three runs. Not to be changed."""
    made = make_project(tmp_path_factory.mktemp("score") / "project")
    made.edit(lambda params: params.update(precision="float32"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        patch.setattr(sys, "argv", [])
        on_tiny = [f"{stage} --dataset toy --model tiny" for stage in ("refine", "embed", "score")]
        run_stages("ingest --dataset toy", "crop --dataset toy", *on_tiny)
    return made.folder


@pytest.fixture
def project(computed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of it that may be changed, which is the present folder."""
    shutil.copytree(computed, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Project(tmp_path / "copy")


def metrics() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(METRICS.read_text(encoding="utf-8"))
    return found


def test_every_method_has_its_rows_and_its_metrics(project: Project) -> None:
    rows = pl.read_parquet(PREDICTIONS)
    assert rows.height == 9 * (5 + 4 * 3)
    assert list(metrics()) == METHODS
    for name in METHODS:
        assert list(metrics()[name]) == KEYS
        assert metrics()[name]["images"] == 9
        assert metrics()[name]["runs"] == (1 if name in METHODS[:5] else 3)
    assert rows.group_by("image_id", "method", "run").len()["len"].max() == 1
    truth = pl.read_parquet(IMAGES).select("image_id", truth="label")
    joined = rows.join(truth, on="image_id")
    assert joined.height == rows.height
    assert (joined["label"] == joined["truth"]).all()
    assert rows["predicted"].is_between(0, 2).all()
    assert (rows["margin"] >= 0).all()


def test_metrics_are_those_of_the_predictions(project: Project) -> None:
    right = pl.read_parquet(PREDICTIONS).with_columns(right=(pl.col("predicted") == pl.col("label")) * 100.0)
    runs = right.group_by("method", "run").agg(pl.col("right").mean())
    found = {
        row["method"]: row for row in runs.group_by("method").agg(top1=pl.mean("right"), std=pl.std("right")).to_dicts()
    }
    assert set(found) == set(METHODS)
    for name in METHODS:
        assert metrics()[name]["top1"] == pytest.approx(found[name]["top1"], abs=1e-3)
        assert metrics()[name]["std"] == pytest.approx(found[name]["std"] or 0.0, abs=1e-3)
        of_class = right.filter(pl.col("method") == name).group_by("label").agg(pl.mean("right"))["right"]
        assert metrics()[name]["mean_per_class"] == pytest.approx(of_class.mean(), abs=1e-3)
        assert metrics()[name]["top5"] == 100.0, "three classes are among the first five"
    assert len({metrics()[name]["top1"] for name in METHODS}) > 1


def test_people_read_the_best_classes_of_one_method_by_name(project: Project, call: Call) -> None:
    project.edit(lambda params: params["score"].update(csv_method="wca"))
    project.edit(lambda params: params["datasets"]["toy"].update(names=["crane, grey", "crane", "crane"]))
    assert call("ingest", "--dataset", "toy").code == 0
    for source in ("cupl", "clip-d"):
        path = Path(f"descriptions/toy/{source}.json")
        old = list(json.loads(path.read_text()).values())
        path.write_text(json.dumps({"crane, grey": old[0], "crane": old[1]}))
    for stage in ("refine", "score"):
        done = call(stage, *ON_TINY)
        assert done.code == 0, done.err
    names = ["crane, grey", "crane (1)", "crane (2)"]
    rows = pl.read_csv(PEOPLE).to_dicts()
    best = pl.read_parquet(TOP5).filter(pl.col("method") == "wca").to_dicts()
    assert [row["image"] for row in rows] == pl.read_parquet(IMAGES)["image_id"].to_list()
    for row, own in zip(rows, best, strict=True):
        first, second, _ = own["classes"]
        assert (row["true_class"], row["predicted"]) == (names[own["label"]], names[first])
        assert (row["runner_up"], row["method"]) == (names[second], "wca")
        assert row["score"] == pytest.approx(own["scores"][0], abs=1e-6)
        assert row["margin"] == pytest.approx(own["scores"][0] - own["scores"][1], abs=2e-6)
        assert row["agreement"] == pytest.approx(own["agreement"], abs=1e-4)


def test_a_method_for_people_that_is_missing_or_unknown(project: Project, call: Call) -> None:
    project.edit(lambda params: params["score"].update(csv_method="clip-d"))
    project.edit(lambda params: params["sources"].pop("clip-d"))
    assert call("refine", *ON_TINY).code == 0
    done = call("score", *ON_TINY)
    assert "predictions.csv is of bifta, because clip-d (score.csv_method) was not scored" in done.out
    assert set(pl.read_csv(PEOPLE)["method"]) == {"bifta"}
    project.edit(lambda params: params["datasets"]["toy"].update(score={"csv_method": "bift"}))
    Path("descriptions/prompts").mkdir()
    Path("descriptions/prompts/cupl.yaml").write_text("paper: our own\n")
    for stage in (("score", *ON_TINY), ("common.check",)):
        done = call(*stage)
        assert done.code == 1 and "csv_method 'bift' is no method (did you mean 'bifta'?)" in done.err


def test_best_classes_of_another_run_are_refused(project: Project, call: Call) -> None:
    other = TOP5.read_bytes()
    project.edit(lambda params: params.update(seed=7))
    for stage, *on in (("refine", *ON_TINY), ("crop", *ON_TINY[:2]), ("embed", *ON_TINY), ("score", *ON_TINY)):
        assert call(stage, *on).code == 0
    TOP5.write_bytes(other)
    classes = read_classes("toy")
    with pytest.raises(UserError, match=r"top5\.parquet was not written with .*predictions\.parquet"):
        list(read_best(open_predictions("toy", "tiny"), read_labels("toy", classes), 3, "bifta"))


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("classes", [1, 0, 2], "not in order"),
        ("classes", [0, 1, 1], "not in order"),
        ("classes", [0, 1], "as many scores each"),
        ("classes", [-1, 1, 2], "negative"),
        ("scores", [0.5, 0.6, 0.4], "not in order"),
        ("scores", [math.nan, 0.5, 0.5], "not finite"),
        ("agreement", 1.5, "not between 0 and 1"),
        ("agreement", None, "have no 'agreement'"),
    ],
)
def test_the_structure_of_the_best_classes_is_checked(column: str, value: Any, problem: str) -> None:
    good = {"image_id": "a", "label": 1, "method": "wca", "classes": [0, 1, 2], "scores": [0.5, 0.5, 0.4]}
    rows = [{**good, "agreement": 0.5}, {**good, "agreement": 0.5, column: value}]
    table = pa.Table.from_pylist(rows, schema=artifacts.TOP5.columns)
    assert check_top5(table[:1], None) == ""  # type: ignore[arg-type]
    assert problem in check_top5(table, None)  # type: ignore[arg-type]


def test_predictions_say_what_made_them(project: Project) -> None:
    meta = read_meta(PREDICTIONS, artifacts.PREDICTIONS)
    assert meta.dataset == "toy"
    assert meta.model == read_meta(VIEWS / "part-00000.parquet", artifacts.VIEWS).model
    assert meta.parameters.runs == 3
    assert meta.parameters.iou_threshold == 0.8


def test_a_second_run_writes_the_same_bytes(project: Project, call: Call) -> None:
    before = [path.read_bytes() for path in OUTPUTS]
    for path in OUTPUTS:
        path.unlink()
    assert call("score", *ON_TINY).code == 0
    assert [path.read_bytes() for path in OUTPUTS] == before


def test_batches_of_images_make_no_difference(project: Project, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pl.read_parquet(PREDICTIONS)
    monkeypatch.setattr("stages.score.dataset.IMAGES_PER_BATCH", 3)
    monkeypatch.setattr("stages.score.outcomes.ROWS_PER_GROUP", 20)
    assert call("score", *ON_TINY).code == 0
    after = pl.read_parquet(PREDICTIONS)
    assert after.drop("score", "margin").equals(before.drop("score", "margin"))
    for column in ("score", "margin"):
        assert after[column].to_numpy() == pytest.approx(before[column].to_numpy(), abs=1e-6)


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


CROSS = (
    ("wca", "all", "cupl"),
    ("bifta-views", "refined", "cupl"),
    ("bifta-texts", "all", "kept"),
    ("bifta", "refined", "kept"),
)


def double_sum(w: np.ndarray, images: np.ndarray, v: np.ndarray, texts: np.ndarray, normalize: bool) -> float:
    """sum_ij w_i v_j cos(I_i, T_j) in float64, not factorised; by the lengths of both sums if `normalize`."""
    total = float((w[:, None] * v[None, :] * (images @ texts.T)).sum())
    if normalize:
        total /= math.sqrt((w[:, None] * w[None, :] * (images @ images.T)).sum())
        total /= math.sqrt((v[:, None] * v[None, :] * (texts @ texts.T)).sum())
    return total


@pytest.mark.parametrize(
    ("threshold", "views", "runs", "normalize"),
    [(0.6, "all", 1, False), (0.8, "all", 1, False), (0.8, 6, 3, False), (0.6, 6, 3, True)],
)
def test_scores_follow_from_the_files_alone(
    project: Project, call: Call, threshold: float, views: int | str, runs: int, normalize: bool
) -> None:
    """Both weighted sums, with every kept view once and with drawn ones: from the Parquet files, image by image."""

    def change(params: dict[str, Any]) -> None:
        params["score"].update(iou_threshold=threshold, views_per_run=views, runs=runs, normalize=normalize)

    project.edit(change)
    shards = {path: path.stat().st_mtime_ns for path in VIEWS.iterdir()}
    assert call("embed", *ON_TINY).code == 0
    assert {path: path.stat().st_mtime_ns for path in VIEWS.iterdir()} == shards, "no crop is embedded again"
    assert call("score", *ON_TINY).code == 0
    rows, boxes, texts = pl.read_parquet(PREDICTIONS), pl.read_parquet(BOXES), pl.read_parquet(TEXTS)
    top5 = pl.read_parquet(TOP5)
    stored = pl.concat([pl.read_parquet(path) for path in sorted(VIEWS.iterdir())])
    assert stored.group_by("image_id").len()["len"].n_unique() > 1, "images have different numbers of views"
    stored = stored.join(boxes.select("image_id", "candidate", "kept"), on=["image_id", "candidate"], how="left")
    survives = pl.col("kept").list.eval((pl.element() - threshold).abs() < 1e-6).list.any()
    pools = {"all": pl.col("candidate").is_between(0, 9), "refined": survives}
    chosen = {"cupl": pl.col("source") == "cupl", "kept": pl.col("kept")}
    for method, pool, kind in CROSS:
        for image_id in stored["image_id"].unique().to_list():
            own = stored.filter((pl.col("image_id") == image_id) & pools[pool]).sort("candidate")
            assert own.height == 10 if pool == "all" else own.height <= 10
            images, similarity = own["embedding"].to_numpy().astype(float), own["similarity"].to_numpy().astype(float)
            found = rows.filter((pl.col("image_id") == image_id) & (pl.col("method") == method)).sort("run")
            assert found.height == runs
            means = np.zeros(3)
            for run, row in enumerate(found.to_dicts()):
                drawn = np.arange(own.height)
                if views != "all":
                    drawn = (draw_places(0, [image_id], runs, int(views))[0, run] * own.height).astype(int)
                w = softmax(math.exp(4) * similarity[drawn])
                scores = []
                for label in range(3):
                    of_class = texts.filter((pl.col("label") == label) & chosen[kind])
                    v = softmax(math.exp(2) * of_class["label_similarity"].to_numpy().astype(float))
                    sentences = of_class["embedding"].to_numpy().astype(float)
                    scores.append(double_sum(w, images[drawn], v, sentences, normalize))
                assert row["score"] == pytest.approx(max(scores), abs=1e-4)
                assert row["margin"] == pytest.approx(max(scores) - sorted(scores)[-2], abs=1e-4)
                assert row["predicted"] == int(np.argmax(scores))
                means += np.array(scores) / runs
            (best,) = top5.filter((pl.col("image_id") == image_id) & (pl.col("method") == method)).to_dicts()
            assert best["classes"] == np.argsort(-means).tolist()
            assert best["scores"] == pytest.approx(sorted(means, reverse=True), abs=1e-4)
            assert best["agreement"] == pytest.approx((found["predicted"] == best["classes"][0]).mean())


def test_a_threshold_changes_the_refined_views_alone(project: Project, call: Call) -> None:
    before = pl.read_parquet(PREDICTIONS)
    project.edit(lambda params: params["score"].update(iou_threshold=0.6))
    assert call("score", *ON_TINY).code == 0
    after = pl.read_parquet(PREDICTIONS)
    for method in METHODS:
        same = after.filter(pl.col("method") == method).equals(before.filter(pl.col("method") == method))
        assert same == (method not in ("bifta-views", "bifta"))


def test_a_method_without_its_source_is_left_out_with_a_line(project: Project, call: Call) -> None:
    project.edit(lambda params: params["sources"].pop("clip-d"))
    assert call("refine", *ON_TINY).code == 0
    done = call("score", *ON_TINY)
    assert done.code == 0
    assert [line for line in done.out.splitlines() if "clip-d" in line] == [
        "no row for clip-d: it wants 'clip-d' under `sources` in params.yaml"
    ]
    assert list(metrics()) == [name for name in METHODS if name != "clip-d"]

    project.edit(lambda params: params["sources"].update({"clip-d": "descriptors"}))
    project.edit(lambda params: params["datasets"]["toy"].update(sources=["cupl"]))
    assert call("refine", *ON_TINY).code == 0
    done = call("score", *ON_TINY)
    assert "no row for clip-d: it wants 'clip-d' under `sources` and `datasets.toy.sources` in params.yaml" in done.out
    assert "clip-d" not in pl.read_parquet(PREDICTIONS)["method"].to_list()


def test_random_weights_are_marked_in_the_metrics(
    project: Project, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "configs" / "tiny-score-vit.json"
    config.parent.mkdir()
    config.write_text(json.dumps(TINY_CONFIG))
    open_clip.add_model_config(config)
    try:
        project.edit(lambda params: params["models"].update(random={"name": "tiny-score-vit", "pretrained": None}))
        for stage in ("refine", "embed", "score"):
            done = call(stage, "--dataset", "toy", "--model", "random")
            assert done.code == 0, done.err
    finally:
        config.unlink()
        open_clip.factory._rescan_model_configs()
    found = json.loads((DATA / "random" / "metrics.json").read_text())
    assert found.pop("weights") == UNTRAINED == "UNTRAINED"
    assert list(found) == METHODS
    assert "weights" not in metrics()


def rewrite(path: Path, change: Callable[[pa.Table, Meta], tuple[pa.Table, Meta]]) -> None:
    write_raw(path, *change(*read_raw(path)))


def of_another_model(table: pa.Table, meta: Meta) -> tuple[pa.Table, Meta]:
    return table, {**meta, "model": {**meta["model"], "weights": "0123456789abcdef"}}


def texts_of_another_model(project: Project) -> list[str]:
    rewrite(TEXTS, of_another_model)
    return [str(TEXTS), str(VIEWS / "part-00000.parquet"), "model.weights", "0123456789abcdef"]


def a_shard_of_another_model(project: Project) -> list[str]:
    rewrite(VIEWS / "part-00001.parquet", of_another_model)
    return [str(TEXTS), str(VIEWS / "part-00001.parquet"), "model.weights", "0123456789abcdef"]


def a_shard_of_another_data_set(project: Project) -> list[str]:
    rewrite(VIEWS / "part-00002.parquet", lambda table, meta: (table, {**meta, "dataset": "birds"}))
    return [str(VIEWS / "part-00002.parquet"), "'birds'", "'toy'"]


def boxes_of_other_parameters(project: Project) -> list[str]:
    project.edit(lambda params: params["crop"].update(max_scale=0.8))
    run_stages("crop --dataset toy")
    return [str(BOXES), str(VIEWS / "part-00000.parquet"), "crop.max_scale is 0.9 in the first, 0.8 in the second"]


def a_shard_of_another_precision(project: Project) -> list[str]:
    def change(table: pa.Table, meta: Meta) -> tuple[pa.Table, Meta]:
        return table, {**meta, "model": {**meta["model"], "precision": "bfloat16"}}

    rewrite(VIEWS / "part-00001.parquet", change)
    return [str(VIEWS / "part-00001.parquet"), str(VIEWS / "part-00000.parquet"), "'bfloat16'", "'float32'"]


def a_missing_shard(project: Project) -> list[str]:
    (VIEWS / "part-00001.parquet").unlink()
    return [str(VIEWS), "lacks shard 1"]


def the_last_shard_missing(project: Project) -> list[str]:
    (VIEWS / "part-00002.parquet").unlink()
    return [str(VIEWS), "8 images", str(IMAGES), "lists 9"]


def no_shards(project: Project) -> list[str]:
    shutil.rmtree(VIEWS)
    return ["no shards", str(VIEWS), "dvc pull"]


def images_of_other_names(project: Project) -> list[str]:
    def change(table: pa.Table, meta: Meta) -> tuple[pa.Table, Meta]:
        ids = [f"{name}x" if row == 6 else name for row, name in enumerate(table["image_id"].to_pylist())]
        return table.set_column(0, "image_id", pa.array(ids)), meta

    rewrite(IMAGES, change)
    return [str(BOXES), "no boxes of", "dvc repro crop"]


def a_shard_of_other_rows(project: Project) -> list[str]:
    """Its metadata is right, its rows are not."""

    def change(table: pa.Table, meta: Meta) -> tuple[pa.Table, Meta]:
        ids = [f"x/{name}" for name in table["image_id"].to_pylist()]
        return table.set_column(0, "image_id", pa.array(ids)), meta

    rewrite(VIEWS / "part-00001.parquet", change)
    return [str(VIEWS / "part-00001.parquet"), "rows of other images", "dvc repro"]


def an_image_replaced(project: Project) -> list[str]:
    image = project.folder / "toy-images" / pl.read_parquet(IMAGES)["image_id"][5]
    width, height = pl.read_parquet(IMAGES).select("width", "height").row(5)
    make_image(image, width, height, seed=77)
    run_stages("ingest --dataset toy")
    return [str(VIEWS / "part-00001.parquet"), str(IMAGES), "dvc repro embed"]


def a_threshold_without_boxes(project: Project) -> list[str]:
    def change(params: dict[str, Any]) -> None:
        params["crop"]["iou_thresholds"].append(0.9)
        params["score"]["iou_threshold"] = 0.9

    project.edit(change)
    return ["score.iou_threshold 0.9", str(BOXES), "[0.6, 0.8]", "dvc repro crop"]


def a_truncated_shard(project: Project) -> list[str]:
    path = VIEWS / "part-00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    return [str(path), "is not a whole Parquet file"]


def texts_of_other_weights(project: Project) -> list[str]:
    """The same entry of params.yaml, another checkpoint behind it: only the hash tells."""
    make_tiny_model(project.folder / "tiny-model", seed=5)
    run_stages("refine --dataset toy --model tiny")
    return [str(TEXTS), str(VIEWS / "part-00000.parquet"), "model.weights"]


@pytest.mark.parametrize(
    "mistake",
    [
        texts_of_another_model,
        texts_of_other_weights,
        a_shard_of_another_model,
        a_shard_of_another_data_set,
        a_shard_of_another_precision,
        boxes_of_other_parameters,
        a_missing_shard,
        the_last_shard_missing,
        no_shards,
        images_of_other_names,
        a_shard_of_other_rows,
        an_image_replaced,
        a_threshold_without_boxes,
        a_truncated_shard,
    ],
    ids=lambda mistake: mistake.__name__,
)
def test_what_does_not_belong_together_is_refused(
    project: Project, call: Call, monkeypatch: pytest.MonkeyPatch, mistake: Callable[[Project], list[str]]
) -> None:
    before = [path.read_bytes() for path in OUTPUTS]
    monkeypatch.setattr(sys, "argv", [])
    expected = mistake(project)
    done = call("score", *ON_TINY)
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    for part in expected:
        assert part in done.err
    assert [path.read_bytes() for path in OUTPUTS] == before, "what was computed stays"
    assert [path.name for path in TINY.glob(".*")] == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
def test_a_full_disk_or_an_interruption_leaves_what_was_there(
    project: Project, call: Call, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    before = [path.read_bytes() for path in OUTPUTS]

    def fail(*_: object) -> None:
        raise error

    where = (
        "stages.score.outcomes.predictions_table" if isinstance(error, OSError) else "stages.score.dataset.score_batch"
    )
    monkeypatch.setattr(where, fail)
    done = call("score", *ON_TINY)
    assert done.code == (1 if isinstance(error, OSError) else 130)
    assert done.err.count("\n") == 1
    assert [path.read_bytes() for path in OUTPUTS] == before
    assert [path.name for path in TINY.glob(".*")] == []


def test_an_image_without_a_label_is_refused(project: Project, call: Call) -> None:
    def change(table: pa.Table, meta: Meta) -> tuple[pa.Table, Meta]:
        labels = [None, *table["label"].to_pylist()[1:]]
        return table.set_column(1, "label", pa.array(labels, pa.int32())), meta

    rewrite(IMAGES, change)
    done = call("score", *ON_TINY)
    first = pl.read_parquet(IMAGES)["image_id"][0]
    assert done.code == 1 and done.err.count("\n") == 1 and f"the image '{first}' has no label" in done.err
