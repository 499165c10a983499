"""FINER joins the other pipeline: attributes as a source of descriptions, and the method `attrseek`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from conftest import Call, Project
from finer_project import answers_parameters, make_labelled
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.params import Score, load_params
from stages.common.tables import make_meta, write_table
from stages.finer.align.attrseek import Seen, align, outcome, split_attributes
from stages.finer.artifacts import ANSWERS

PATH = Path("data/finer/answers/vlm/toy.parquet")
MADE = Path("data/toy/tiny/attrseek")


@pytest.mark.parametrize(
    ("answer", "attributes"),
    [
        ("red crown; long tail; Red crown.", ["red crown", "long tail"]),
        ("Visible attributes:\n- red crown\n* **long tail**\n3. none", ["red crown", "long tail"]),
        ("red crown, long tail, and a hooked beak", ["red crown", "long tail", "a hooked beak"]),
        ("<think>a; b</think>Answer: red crown", ["red crown"]),
        ("red crown, with a white edge; long tail", ["red crown, with a white edge", "long tail"]),
        ("It is red; so</think>red crown; long tail", ["red crown", "long tail"]),
        ("<think>red crown; long", []),
        ("None are visible, as it is dark.", []),
        ("•red crown\n-none visible\n-long tail\n1. (none)", ["red crown", "long tail"]),
        ("x-shaped mark; 4 feet", ["x-shaped mark", "4 feet"]),
        ("", []),
    ],
)
def test_what_was_seen_becomes_a_list(answer: str, attributes: list[str]) -> None:
    assert split_attributes(answer) == attributes


def slow_align(views: list[np.ndarray], whole: np.ndarray, classes: np.ndarray, score: Score) -> np.ndarray:
    """sum_ij w_i cos(A_i, T), an image and a class at a time."""
    rows = []
    for own, image in zip(views, whole, strict=True):
        logits = [float(np.exp(score.image_scale) * (a @ image) / np.linalg.norm(image)) for a in own]
        weights = np.exp(np.array(logits) - max(logits))
        vector = sum(w * a for w, a in zip(weights / weights.sum(), own, strict=True))
        rows.append([(vector / np.linalg.norm(vector)) @ c if score.normalize else vector @ c for c in classes])
    return np.array(rows)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_attributes_are_aligned_as_views_are(seed: int, normalize: bool) -> None:
    rng = np.random.default_rng(seed)

    def unit(count: int) -> np.ndarray:
        rows = rng.normal(size=(count, 6)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    score = load_params().score.model_copy(update={"normalize": normalize, "image_scale": 1.0})
    views = [unit(int(count)) for count in rng.integers(1, 5, 70)]  # more than a batch
    whole, classes = 3 * unit(70), unit(4)
    np.testing.assert_allclose(align(views, whole, classes, score), slow_align(views, whole, classes, score), atol=2e-5)


@pytest.fixture
def toy(project: Project, monkeypatch: pytest.MonkeyPatch, call: Call) -> Project:
    make_labelled(project)
    project.edit(lambda params: params["finer"].update(endpoints={"vlm": {"model": "x"}}, served={}))
    monkeypatch.chdir(project.folder)
    assert call("ingest", "--dataset", "toy").code == 0
    assert call("finer.concepts", "--dataset", "toy").code == 0
    return project


def refine_with(sources: object, params: dict[str, Any]) -> None:
    params["refine"].update(sources=sources)


def refined() -> dict[str, int]:
    texts = pl.read_parquet("data/toy/tiny/texts.parquet").filter(pl.col("kept").is_not_null())
    return dict(texts.group_by("source").len().iter_rows())


def test_attributes_are_a_source_for_refinement_alone_and_with_others(toy: Project, call: Call) -> None:
    for sources, expected in ((["finer"], {"finer"}), (["cupl", "finer"], {"cupl", "finer"}), ("all", {"cupl"})):
        toy.edit(partial(refine_with, sources))
        done = call("refine", "--dataset", "toy", "--model", "tiny")
        assert (done.code, set(refined())) == (0, expected), done.err
        if sources == ["finer"]:
            described = pl.read_parquet("data/toy/tiny/texts.parquet").filter(pl.col("source") == "finer")
            assert described["description"][0] == "Grey_Heron, which has crown 0"
            assert len(described) == 6


def test_a_data_set_without_attributes_is_named(toy: Project, call: Call) -> None:
    Path("descriptions/toy/finer.json").unlink()
    toy.edit(lambda params: params["refine"].update(sources=["finer"]))
    done = call("refine", "--dataset", "toy", "--model", "tiny")
    assert done.code == 1 and "descriptions/toy/finer.json is missing; put a published file there" in done.err
    assert "python -m stages.finer.concepts --dataset toy" in done.err


def write_answers(rows: list[dict]) -> None:
    whole = {"granularity": "superordinate", "prompting": "attrseek", "input": "image"}
    meta = make_meta(ANSWERS, "toy", answers_parameters("vlm"))
    table = pa.Table.from_pylist([{"idx": n} | whole | row for n, row in enumerate(rows)], ANSWERS.columns)
    write_table(PATH, table, meta)


def test_attrseek_is_a_row_beside_bifta(toy: Project, call: Call) -> None:
    for line in ("crop", "embed --model tiny", "refine --model tiny", "score --model tiny"):
        name, *options = line.split()
        assert call(name, "--dataset", "toy", *options).code == 0
    images = pl.read_parquet("data/toy/images.parquet")
    asked = [
        {"image_id": row["image_id"], "label": row["label"], "attributes": f"crown {row['label']}; long tail"}
        for row in images.iter_rows(named=True)
    ]
    asked[0]["attributes"], asked[1]["attributes"] = None, "none"  # refused, and nothing seen
    fine = {"granularity": "fine", "image_id": asked[0]["image_id"], "label": 0, "attributes": "seen elsewhere"}
    write_answers([*asked, fine])
    done = call("finer.align", "--dataset", "toy")
    assert (done.code, done.err) == (0, "")
    assert "of 7 images (2 without attributes are not scored); of the same images clip " in done.out
    metrics = json.loads((MADE / "metrics.json").read_text())
    found = pl.read_parquet(MADE / "predictions.parquet")
    own = pl.read_parquet("data/toy/tiny/predictions.parquet")
    assert found.schema == own.schema and set(found["image_id"]) == {row["image_id"] for row in asked[2:]}
    right = 100 * np.mean(found["predicted"].to_numpy() == found["label"].to_numpy())
    of_class = found.group_by("label").agg(share=100 * (pl.col("predicted") == pl.col("label")).mean())["share"].mean()
    assert metrics["attrseek (vlm)"] | {"top5": 0} == {
        "top1": pytest.approx(right, abs=1e-3),
        "top5": 0,
        "mean_per_class": pytest.approx(of_class, abs=1e-3),
        "std": 0.0,
        "images": 7,
        "runs": 1,
    }
    table = call("report").out.splitlines()
    places = [
        next(n for n, line in enumerate(table) if line.startswith(name)) for name in ("bifta ", "attrseek (vlm) ")
    ]
    assert places[1] == places[0] + 1
    assert "LVLM's attributes  refined union" in table[places[1]]
    first = (MADE / "predictions.parquet").read_bytes()
    assert call("finer.align", "--dataset", "toy").code == 0
    assert (MADE / "predictions.parquet").read_bytes() == first


def test_without_attrseek_s_answers_the_line_says_what_is_wanted(toy: Project, call: Call) -> None:
    for line in ("crop", "embed --model tiny", "refine --model tiny", "score --model tiny"):
        name, *options = line.split()
        assert call(name, "--dataset", "toy", *options).code == 0
    write_answers([])
    done = call("finer.align", "--dataset", "toy")
    assert done.code == 0 and "no row for attrseek (vlm): it needs ATTRSEEK's answers" in done.out
    assert json.loads((MADE / "metrics.json").read_text()) == {}


def test_ties_and_what_is_no_number_count_as_with_the_other_methods() -> None:
    """Of equal scores the lower label is ahead, and NaN is right nowhere."""
    scores = np.zeros((3, 7), dtype=np.float32)
    scores[2] = np.nan
    seen = Seen("lvlm", ["a", "b", "c"], np.array([0, 5, 1], dtype=np.int32), [], 0)
    table, metrics = outcome("attrseek (lvlm)", seen, scores)
    assert metrics["top1"] == metrics["top5"] == pytest.approx(100 / 3, abs=1e-4)
    assert table["predicted"].to_pylist()[:2] == [0, 0]
