"""Pictures of evidence: weights and contributions against brute force, what is read, what is written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from artifact_files import read_raw, write_raw
from conftest import Project, make_project
from matplotlib.text import Text
from PIL import Image

from stages.common import paths
from stages.common.artifacts import PREDICTIONS, TEXTS
from stages.common.columns import embedding_rows
from stages.common.errors import UserError
from stages.common.labels import read_classes
from stages.common.tables import read_meta, read_table
from stages.report import evidence, evidence_picture
from stages.report.evidence import Evidence, Match, Side, Texts, class_scores, hold_against, read_evidence, weigh
from stages.report.pictures import Caption, read_candidates


def unit(rng: np.random.Generator, count: int, width: int = 8) -> np.ndarray:
    rows = rng.normal(size=(count, width)) + 1.0
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_weights_are_the_softmax_over_the_kept_views() -> None:
    similarity, kept = np.array([0.9, 0.5, 0.8, 0.7]), np.array([True, False, True, True])
    weights = weigh(similarity, kept, image_scale=1.5)
    powers = np.exp(np.exp(1.5) * similarity)
    np.testing.assert_allclose(weights[kept], powers[kept] / powers[kept].sum())
    assert weights[kept].sum() == pytest.approx(1)


def test_a_rejected_view_has_the_weight_it_would_have_beside_the_kept_ones() -> None:
    similarity, kept = np.array([0.9, 0.95, 0.8, 0.1]), np.array([True, False, True, False])
    weights = weigh(similarity, kept, image_scale=2.0)
    for rejected in (1, 3):
        joined = kept.copy()
        joined[rejected] = True
        assert weights[rejected] == pytest.approx(weigh(similarity, joined, image_scale=2.0)[rejected])


def test_weights_of_a_high_scale_do_not_overflow() -> None:
    weights = weigh(np.array([1.0, 0.2]), np.array([True, True]), image_scale=8.0)
    assert weights.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("normalize", [True, False])
def test_shares_are_the_terms_of_the_double_sum(normalize: bool) -> None:
    rng = np.random.default_rng(1)
    views, texts = unit(rng, 5), unit(rng, 3)
    w, v = rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(3))
    of_views, of_texts, cosines = hold_against(views, w, texts, v, normalize)
    image, of_class = sum(w[i] * views[i] for i in range(5)), sum(v[j] * texts[j] for j in range(3))
    norm = float(np.linalg.norm(image) * np.linalg.norm(of_class)) if normalize else 1.0
    terms = np.array([[w[i] * v[j] * float(views[i] @ texts[j]) for j in range(3)] for i in range(5)])
    np.testing.assert_allclose(of_views, terms.sum(axis=1) / norm)
    np.testing.assert_allclose(of_texts, terms.sum(axis=0) / norm)
    np.testing.assert_allclose(cosines, [sum(w[i] * float(views[i] @ texts[j]) for i in range(5)) for j in range(3)])


@pytest.mark.parametrize("normalize", [True, False])
def test_the_shares_of_a_class_sum_to_its_score(normalize: bool) -> None:
    rng = np.random.default_rng(2)
    views, w = unit(rng, 4), rng.dirichlet(np.ones(4))
    labels = np.array([0, 0, 1, 1, 1, 2], dtype=np.int32)
    texts = Texts(labels, list("abcdef"), np.array([0.4, 0.6, 0.2, 0.3, 0.5, 1.0]), unit(rng, 6).astype(np.float32))
    scores = class_scores(w @ views, texts, 3, normalize)
    for label in range(3):
        found = evidence.side(label, views, w, texts, normalize)
        assert found.score == pytest.approx(scores[label])
        assert sum(match.contribution for match in found.matches) == pytest.approx(scores[label])
        shares = [match.contribution for match in found.matches]
        assert shares == sorted(shares, reverse=True)
        assert {match.description for match in found.matches} == {"abcdef"[i] for i in np.flatnonzero(labels == label)}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of nine images, scored once with every kept view, so that its scores are those of the evidence."""
    project: Project = make_project(tmp_path_factory.mktemp("evidence") / "project")
    project.edit(lambda params: params["score"].update(views_per_run="all", runs=1))
    stages = ["ingest --dataset toy", "crop --dataset toy"]
    stages += [f"{stage} --dataset toy --model tiny" for stage in ("refine", "embed", "score")]
    lines = [f"run_stages({', '.join(map(repr, stages))})"]
    code = "import sys; sys.path.insert(0, {!r}); from conftest import run_stages; {}"
    project.run("python", "-c", code.format(str(Path(__file__).parent), lines[0]))
    return project.folder


@pytest.fixture
def toy(scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the scored project, entered."""
    folder = tmp_path / "toy"
    shutil.copytree(scored, folder)
    monkeypatch.chdir(folder)
    return folder


def answers() -> pl.DataFrame:
    predictions = pl.read_parquet(paths.predictions("toy", "tiny")).filter(pl.col("method") == "bifta")
    return predictions.select("image_id", "label", pl.col("predicted").alias("bifta"), "score", "margin")


def read(chosen: pl.DataFrame) -> dict[str, Evidence]:
    candidates, _ = read_candidates("toy", chosen["image_id"].to_list(), 0.8)
    meta = read_meta(paths.predictions("toy", "tiny"), PREDICTIONS)
    return read_evidence("tiny", meta, chosen, candidates, read_classes("toy"))


def test_evidence_adds_up_to_what_score_wrote(toy: Path) -> None:
    chosen = answers()
    found = read(chosen)
    assert list(found) == chosen["image_id"].to_list()
    for image_id, label, predicted, score, margin in chosen.iter_rows():
        seen = found[image_id]
        by_label = {side.label: side.score for side in seen.sides}
        assert seen.sides[0].label == label
        assert by_label[predicted] == pytest.approx(score, abs=1e-5)
        assert len(by_label) == 2
        if predicted == label:  # the other class is then the next best
            assert score - seen.sides[1].score == pytest.approx(margin, abs=1e-5)


def test_accepted_and_rejected_are_the_boxes_of_the_threshold(toy: Path) -> None:
    chosen = answers()[4:5]
    seen = read(chosen)[chosen["image_id"][0]]
    boxes = pl.read_parquet(paths.boxes("toy")).filter(pl.col("image_id") == chosen["image_id"][0])
    kept = boxes.filter(pl.col("kept").list.contains(pl.lit(0.8, dtype=pl.Float32)))
    corners = ["left", "top", "right", "bottom"]
    assert {*map(tuple, seen.accepted.tolist())} == {*kept.select(corners).iter_rows()}
    assert (np.diff(seen.weights) <= 0).all()
    assert (np.diff(seen.hypothetical_weights) <= 0).all()
    assert seen.weights.sum() == pytest.approx(1)
    assert not {*map(tuple, seen.accepted.tolist())} & {*map(tuple, seen.rejected.tolist())}
    views = pl.read_parquet("data/toy/tiny/views/*.parquet").filter(pl.col("image_id") == chosen["image_id"][0])
    assert len(seen.accepted) + len(seen.rejected) == len(views) - 1


def rewrite(path: Path, change: Any) -> None:
    """Write a table again with other metadata."""
    table, meta = read_raw(path)
    change(meta)
    write_raw(path, table, meta)


def test_texts_of_another_model_are_refused(toy: Path) -> None:
    path = paths.texts("toy", "tiny")
    rewrite(path, lambda meta: meta["model"].update(weights="other"))
    with pytest.raises(UserError, match=r"texts.parquet and .*predictions.parquet do not belong together.*weights"):
        read(answers()[:1])


def test_views_of_another_model_or_other_boxes_are_refused(toy: Path) -> None:
    path = paths.views("toy", "tiny") / "part-00000.parquet"
    before = path.read_bytes()
    rewrite(path, lambda meta: meta["model"].update(precision="other"))
    with pytest.raises(UserError, match="do not belong together"):
        read(answers()[:1])
    path.write_bytes(before)
    rewrite(path, lambda meta: meta["parameters"]["crop"].update(seed=99))
    with pytest.raises(UserError, match="do not belong together"):
        read(answers()[:1])


def test_only_shards_of_the_chosen_images_are_read(toy: Path) -> None:
    path = paths.views("toy", "tiny") / "part-00001.parquet"  # images 4 to 7
    table, meta = read_raw(path)
    write_raw(path, table.slice(0, len(table) - 1), meta)
    assert len(read(answers()[:1])) == 1
    with pytest.raises(UserError, match="has views of other crops"):
        read(answers()[5:6])


def test_views_that_lack_a_kept_crop_are_refused(toy: Path) -> None:
    path = paths.views("toy", "tiny") / "part-00000.parquet"
    table, meta = read_raw(path)
    write_raw(path, pa.concat_tables([table.slice(0, 1), table.slice(2)]), meta)  # candidate 0 is always kept
    with pytest.raises(UserError, match="has views of other crops"):
        read(answers()[:1])


def test_the_report_draws_it_the_same_every_time(toy: Path, call: Any) -> None:
    assert call("report", "--dataset", "toy", "--model", "tiny").code == 0
    path = paths.report("toy", "tiny") / "evidence" / "01.png"
    first = path.read_bytes()
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert set(image.info) <= {"dpi"}
    path.unlink()
    assert call("report", "--dataset", "toy", "--model", "tiny").code == 0
    assert path.read_bytes() == first


@pytest.mark.parametrize("missing", ["texts.parquet", "views"])
def test_without_texts_or_views_there_is_one_line_and_the_rest(toy: Path, call: Any, missing: str) -> None:
    path = Path("data/toy/tiny") / missing
    path.rename("elsewhere")
    done = call("report", "--dataset", "toy", "--model", "tiny")
    assert done.code == 0
    assert [line for line in done.err.splitlines() if "warning" in line] == [
        "warning: no pictures of evidence: texts or views are missing; fetch them with `dvc pull`"
    ]
    assert list((paths.report("toy", "tiny") / "evidence").iterdir()) == []
    assert len(list((paths.report("toy", "tiny") / "boxes").iterdir())) == 1


def a_side(label: int, weights: np.ndarray) -> Side:
    matches = [Match("A $5 tail, " * 40, 0.5, 0.3, 0.15), Match("Its crown.", 0.5, 0.28, 0.14)]
    return Side(label, 0.29 - label / 100, weights * (0.29 - label / 100), matches)


@pytest.mark.parametrize("size", [(90, 40), (40, 90)])
@pytest.mark.parametrize(("accepted", "classes", "right"), [(1, 1, True), (9, 2, True), (9, 2, False)])
def test_the_picture_says_weights_shares_and_sentences(
    size: tuple[int, int], accepted: int, classes: int, right: bool
) -> None:
    weights = np.arange(accepted, 0, -1) / (accepted * (accepted + 1) / 2)
    boxes = np.array([[i, i, i + 30, i + 30] for i in range(accepted)], dtype=np.int32)
    none = np.zeros((0, 4), dtype=np.int32)
    sides = [a_side(label, weights) for label in range(classes)]
    seen = Evidence(boxes, weights, boxes[1:] if accepted > 1 else none, weights[1:], sides, right)
    caption = Caption("a/1.png", "red kite", [("bifta", "red kite", right)], 0.8, True)
    names = {0: "red kite", 1: "snow goose"}
    figure = evidence_picture.draw(Image.new("RGB", size), seen, caption, names)
    said = "\n".join(artist.get_text() for artist in figure.findobj(Text))
    assert "UNTRAINED" in said
    assert f"{100 * weights[0]:.1f} %" in said
    assert "0.2900" in said
    assert "Its crown." in said
    assert "0.1400 · 50.0 % · 0.280" in said
    assert ("red kite (true and predicted)" in said) == right
    assert ("snow goose (next best)" in said) == (right and classes == 2)
    assert ("snow goose (predicted)" in said) == (not right)
    assert ("4 others" in said) == (accepted == 9)


def test_weights_of_texts_are_those_of_their_class(toy: Path) -> None:
    table, meta = read_table(paths.texts("toy", "tiny"), TEXTS)
    kept = [row for row in table.to_pylist() if row["kept"] and row["label"] == 1]
    powers = np.exp(np.exp(2.0) * np.array([row["label_similarity"] for row in kept], dtype=np.float64))
    chosen = answers().filter(pl.col("label") == 1)[:1]
    seen = read(chosen)[chosen["image_id"][0]]
    expected = dict(zip([row["description"] for row in kept], powers / powers.sum(), strict=True))
    assert len(seen.sides[0].matches) == min(len(kept), evidence.MATCHES)
    for match in seen.sides[0].matches:
        assert match.weight == pytest.approx(expected[match.description])
    assert embedding_rows(table["embedding"]).shape[1] == meta.encoder().embedding_dim
