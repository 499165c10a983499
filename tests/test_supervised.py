"""supervised: what the frozen encoder reaches with labels, against slow versions and on a small project."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import drift
import numpy as np
import polars as pl
import pytest
import torch
from conftest import CLASSES, ROOT, Call, Project, make_project, make_tiny_model
from embed_project import in_folder
from PIL import Image
from scipy.optimize import minimize  # type: ignore[import-untyped]
from test_params import load_changed, put

from stages.common.errors import UserError
from stages.common.labels import read_classes
from stages.common.methods import ALL, WHOLE
from stages.common.supervised import read_supervised
from stages.common.views import ShardRows
from stages.supervised import learn, linear
from stages.supervised.dataset import read_split
from stages.supervised.features import mean_crops, whole_images
from stages.supervised.knn import knn_scores
from stages.supervised.learn import Learner
from stages.supervised.linear import choose_strength, fit, validation_images

FOUND = Path("data/toy/tiny/supervised.json")
RUN = ("supervised", "--dataset", "toy", "--train", "toy-train", "--model", "tiny")
TRAIN = {"reader": "folder", "root": "train-images", "sources": []}


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clouds(count: int, seed: int = 0, classes: int = 7, width: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of overlapping classes, which all point the same way a little, as CLIP's do: [N, D], [N]."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(size=(classes, width))
    labels = rng.integers(0, classes, count)
    return unit(centers[labels] + 1.5 * rng.normal(size=(count, width)) + 2), labels


def test_neighbours_vote_as_in_a_slow_version() -> None:
    (train, labels), (images, truth) = clouds(60), clouds(25, seed=1)
    scores = knn_scores(torch.from_numpy(images), torch.from_numpy(train), torch.from_numpy(labels), 7, 20)
    right, in_top = 0, 0
    for image, own, true in zip(images, scores, truth, strict=True):
        cosines = [float(image.astype(float) @ other.astype(float)) for other in train]
        votes = np.zeros(7)
        for place in sorted(range(60), key=lambda n: -cosines[n])[:20]:
            votes[labels[place]] += np.exp(cosines[place] / 0.07)
        np.testing.assert_allclose(np.where(votes, own, 0), votes, rtol=1e-4)
        assert (own.isneginf().numpy() == (votes == 0)).all()
        right += int(np.argmax(votes) == true)
        in_top += int(votes[true] > 0 and (votes > votes[true]).sum() < 5)
    metrics = Learner(train, labels, images, truth, 7, torch.device("cpu")).knn()
    assert (metrics["top1"], metrics["top5"]) == (100 * right / 25, 100 * in_top / 25)


def test_a_class_without_a_neighbour_is_not_among_the_best_five() -> None:
    """Label 0 has no image to train on; with two classes among the neighbours it would come third by its number."""
    train = unit(np.eye(3, 8) + 0.1)
    learner = Learner(train, np.array([5, 6, 6]), train[:1], np.array([0]), 7, torch.device("cpu"))
    assert learner.knn()["top5"] == 0


@pytest.mark.parametrize("strength", [1e-2, 1.0, 1e2, 1e5])
def test_the_linear_probe_is_the_optimum_that_scipy_finds(strength: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "VALUES_AT_ONCE", 7 * 128)  # several pieces
    features, labels = clouds(300)
    rows = np.arange(len(labels))

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(7, 17)
        logits = features.astype(float) @ weights[:, :-1].T + weights[:, -1]
        logits -= logits.max(axis=1, keepdims=True)
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        loss = -np.log(shares[rows, labels]).mean() + (weights[:, :-1] ** 2).sum() / (2 * strength * len(rows))
        shares[rows, labels] -= 1
        inner = shares.T @ features / len(rows) + weights[:, :-1] / (strength * len(rows))
        return loss, np.c_[inner, shares.mean(axis=0)].ravel()

    limits = {"maxiter": 20000, "maxfun": 40000, "ftol": 1e-15, "gtol": 1e-11}
    best = minimize(objective, np.zeros(7 * 17), jac=True, method="L-BFGS-B", options=limits)
    center = features.mean(axis=0)
    found = fit(torch.from_numpy(features - center), torch.from_numpy(labels), 7, strength)
    mine = np.c_[found.weights, found.bias - found.weights @ torch.from_numpy(center)]
    assert objective(mine.ravel())[0] == pytest.approx(best.fun, rel=1e-5)
    wanted = features @ best.x.reshape(7, 17)[:, :-1].T + best.x.reshape(7, 17)[:, -1]
    scores = found.scores(torch.from_numpy(features - center)).numpy()
    assert (scores.argmax(axis=1) == wanted.argmax(axis=1)).mean() > 0.99


def test_classifiers_learn_and_their_figures_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    (train, labels), (images, truth) = clouds(200), clouds(100, seed=1)
    monkeypatch.setattr(learn, "COSINES_AT_ONCE", 30 * 200)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            learner = Learner(train, labels, images, truth, 7, torch.device("cpu"))
            found.append((learner.linear(0), learner.knn()))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]
    assert found[0][0] and found[0][0][0]["top1"] > 60


@pytest.mark.parametrize(("peak", "wanted"), [(0.0, 0.0), (3.6, 3.625), (-6.0, -6.0), (9.0, 6.0)])
def test_the_sweep_finds_the_peak_to_an_eighth_of_a_decade(peak: float, wanted: float) -> None:
    asked: list[float] = []

    def judge(several: Sequence[float]) -> list[tuple[float, float]]:
        asked.extend(several)
        return [(-abs(float(np.log10(strength)) - peak), 0.0) for strength in several]

    assert np.log10(choose_strength(judge)) == pytest.approx(wanted)
    assert len(set(asked)) <= 7 + 4 * 2


def test_of_equal_accuracies_the_higher_likelihood_wins_then_the_smaller_c() -> None:
    assert choose_strength(lambda several: [(1.0, -abs(np.log10(c) - 2)) for c in several]) == pytest.approx(100)
    assert choose_strength(lambda several: [(float(c >= 0.99), 0.0) for c in several]) == pytest.approx(1)


def test_validation_images_are_a_fifth_of_each_class() -> None:
    labels = np.repeat([0, 1, 2, 4], [10, 3, 1, 25])
    chosen = validation_images(labels, seed=0)
    assert np.bincount(labels[chosen], minlength=5).tolist() == [2, 1, 0, 0, 5]
    assert (chosen == validation_images(labels, seed=0)).all()
    assert (chosen != validation_images(labels, seed=1)).any()


def test_the_mean_is_over_the_first_crops() -> None:
    candidates = np.array([-1, 0, 1, 4, -1, 1, 2, 3], np.int32)
    embeddings = unit(np.random.default_rng(0).normal(size=(8, 6))).astype(np.float16)
    shard = ShardRows(candidates, np.ones(8, np.float32), embeddings, ["a", "b"], np.array([0, 4, 8]))
    rows = embeddings.astype(np.float64)
    np.testing.assert_allclose(mean_crops(shard, 3), unit(np.stack([rows[1:3].mean(0), rows[5:7].mean(0)])), atol=1e-6)
    np.testing.assert_allclose(whole_images(shard), unit(rows[[0, 4]]), atol=1e-6)


def coloured(path: Path, label: int, seed: int) -> None:
    """A picture of which the colour says the class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    patches = np.random.default_rng(seed).integers(0, 60, (4, 5, 3), dtype=np.uint8)
    patches[..., label] += 190
    Image.fromarray(patches).resize((60, 50)).save(path, quality=95)


def compute(project: Project, *keys: str) -> None:
    for key in keys:
        in_folder(
            project.folder, f"ingest --dataset {key}", f"crop --dataset {key}", f"embed --dataset {key} --model tiny"
        )


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose data set and train split are embedded, and the first scored."""
    made = make_project(tmp_path_factory.mktemp("supervised") / "project")
    shutil.rmtree(made.folder / "toy-images")
    for label, name in enumerate(CLASSES):
        for number in range(6):
            root = "train-images" if number < 4 else "toy-images"
            coloured(made.folder / root / name / f"{number}.jpg", label, 10 * label + number)
    made.edit(lambda params: params["datasets"].update({"toy-train": TRAIN}))
    made.edit(lambda params: params.update(supervised=[{"dataset": "toy", "train": "toy-train"}]))
    compute(made, "toy", "toy-train")
    in_folder(made.folder, "refine --dataset toy --model tiny", "score --dataset toy --model tiny")
    return made


@pytest.fixture
def pair(embedded: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of it, as the present folder."""
    shutil.copytree(embedded.folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Project(tmp_path / "copy")


def test_figures_and_the_table_below_the_zero_shot_methods(pair: Project, call: Call) -> None:
    metrics = Path("data/toy/tiny/metrics.json").read_bytes()
    done = call(*RUN)
    assert done.code == 0, done.err
    assert done.out == (
        "supervised toy tiny: top-1 with the labels of toy-train: "
        "knn 100.00, linear 100.00, knn-crops 100.00, linear-crops 100.00\n"
    )
    found = read_supervised(FOUND)
    assert (found.train, found.train_images, found.notes) == ("toy-train", 12, [])
    assert found.methods["linear"]["images"] == 6
    assert Path("data/toy/tiny/metrics.json").read_bytes() == metrics, "zero-shot's are left alone"
    printed = call("report").out.splitlines()
    rule = next(number for number, line in enumerate(printed) if "not zero-shot" in line)
    assert any(line.startswith("bifta ") for line in printed[:rule])
    assert printed[rule] == "---- with 12 labelled images of toy-train, not zero-shot ----"
    assert [line.split()[0] for line in printed[rule + 2 : rule + 6]] == ["knn", "linear", "knn-crops", "linear-crops"]
    again = FOUND.read_bytes()
    call(*RUN)
    assert FOUND.read_bytes() == again


def test_features_of_a_project_are_those_of_its_views(pair: Project) -> None:
    views = pl.read_parquet("data/toy/tiny/views/part-*.parquet").with_columns(pl.col("embedding").arr.to_list())
    crops = views.filter(pl.col("candidate").is_between(0, 9)).group_by("image_id", maintain_order=True)
    means = [np.mean(np.array(own["embedding"].to_list(), np.float64), axis=0) for _, own in crops]
    whole = views.filter(pl.col("candidate") == -1)["embedding"].to_list()
    found = read_split("toy", "tiny", read_classes("toy")).features([WHOLE, ALL])
    np.testing.assert_allclose(found[ALL], unit(np.stack(means)), atol=1e-5)
    np.testing.assert_allclose(found[WHOLE], unit(np.array(whole)), atol=1e-5)


def test_images_that_both_have_are_left_out(pair: Project, call: Call) -> None:
    name = CLASSES[0]
    shutil.copy(f"toy-images/{name}/5.jpg", f"train-images/{name}/copy.jpg")
    shutil.rmtree(f"train-images/{CLASSES[2]}")
    Path("train-images", CLASSES[2]).mkdir()
    shutil.copy(f"toy-images/{CLASSES[2]}/5.jpg", f"train-images/{CLASSES[2]}/copy.jpg")
    compute(pair, "toy-train")
    done = call(*RUN)
    assert "2 of 10 images of toy-train are left out, because toy has the same." in done.out
    assert "1 of 3 classes have no image in toy-train, such as 'Grey Heron'." in done.out
    found = read_supervised(FOUND)
    assert (found.train_images, len(found.notes)) == (8, 2)
    assert found.methods["knn"]["top1"] == pytest.approx(66.6667), "nothing is predicted as the class without images"
    assert "left out" in call("report").out


def test_one_image_a_class_has_no_linear_probe_and_other_crops_no_row_of_crops(pair: Project, call: Call) -> None:
    for path in Path("train-images").rglob("*.jpg"):
        if path.stem != "0":
            path.unlink()
    pair.edit(lambda params: params["datasets"]["toy-train"].update(crop={"max_views": 2}))
    compute(pair, "toy-train")
    done = call(*RUN)
    assert "No rows of crops, because toy-train has other values of crop.max_views." in done.out
    assert "No linear probe, because no class has two images in toy-train" in done.out
    assert list(read_supervised(FOUND).methods) == ["knn"]


def _same_images() -> None:
    shutil.rmtree("train-images")
    shutil.copytree("toy-images", "train-images")


def _other_classes() -> None:
    Path("train-images", CLASSES[1]).rename("train-images/another")


def _fewer_classes() -> None:
    shutil.rmtree(Path("train-images", max(CLASSES)))


def _no_labels() -> None:
    entry = {"reader": "images", "root": "train-images", "classes": "toy", "sources": []}
    Project(Path()).edit(lambda params: params["datasets"].update({"toy-train": entry}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_same_images, "every image of 'toy-train' is in 'toy' too"),
        (_other_classes, "different classes (label 1 is 'blue tavo' in the first and 'another' in the second)"),
        (_fewer_classes, "have different classes (3 and 2 classes)"),
        (_no_labels, "data/toy-train/images.parquet: the images have no labels"),
    ],
)
def test_splits_that_do_not_fit_are_refused(pair: Project, call: Call, change: Callable[[], None], said: str) -> None:
    change()
    compute(pair, "toy-train")
    done = call(*RUN)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert said in done.err


def test_keys_that_do_not_fit_are_refused(pair: Project, call: Call) -> None:
    line = ["supervised", "--dataset", "toy", "--model", "tiny", "--train"]
    assert "is the data set itself" in call(*line, "toy").err
    assert "no 'toy-trian' under datasets (did you mean 'toy-train'?)" in call(*line, "toy-trian").err


def test_another_encoder_is_refused(pair: Project, call: Call) -> None:
    make_tiny_model(Path("tiny-model"), seed=1)
    compute(pair, "toy-train")
    assert "do not belong together: model.weights" in call(*RUN).err
    compute(pair, "toy")
    assert call(*RUN).code == 0
    assert "Not shown: data/toy/tiny/supervised.json, because the encoder has changed" in call("report").out


def test_figures_that_are_damaged_are_refused_and_those_out_of_date_left_out(pair: Project, call: Call) -> None:
    call(*RUN)
    text = FOUND.read_text()
    FOUND.write_text(text.replace('"top1": 100.0', '"top1": 99.0', 1))
    assert "is damaged, or another program has changed it" in call("report").err
    FOUND.write_text(text)
    coloured(Path("train-images", CLASSES[0], "9.jpg"), 0, 99)
    in_folder(pair.folder, "ingest --dataset toy-train")
    printed = call("report").out
    assert "because data/toy-train/images.parquet has changed since; run `python -m stages.supervised" in printed
    assert "not zero-shot" not in printed
    shutil.rmtree("data/toy-train")  # as in a clone that has not pulled it
    assert "not zero-shot" in call("report").out


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([("toy", "trian")], "supervised names 'trian', which is not under datasets (did you mean 'train'?)"),
        ([("toy", "toy")], "'toy' cannot be its own train split"),
        ([("toy", "train"), ("toy", "train")], "names the data set 'toy' twice"),
        ([("train", "toy")], "datasets.toy: a train split needs no descriptions; add `sources: []`"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(tmp_path: Path, pairs: list[tuple[str, str]], said: str) -> None:
    listed = [{"dataset": dataset, "train": train} for dataset, train in pairs]
    entries = {"toy": {"reader": "folder", "root": "x"}, "train": {**TRAIN}}
    with pytest.raises(UserError) as refused:
        load_changed(tmp_path, put("datasets", entries), put("supervised", listed))
    assert said in str(refused.value)


def test_a_misspelt_key_of_a_pair_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"supervised.0.trian: unknown key \(did you mean 'train'\?\)"):
        load_changed(tmp_path, put("supervised", [{"dataset": "demo", "train": "demo", "trian": "demo"}]))


def test_a_train_split_needs_no_sources_whatever_refine_joins(tmp_path: Path) -> None:
    entries = {"toy": {"reader": "folder", "root": "x"}, "train": {**TRAIN}}
    found = load_changed(tmp_path, put("datasets", entries), put("refine/sources", ["cupl"]))
    assert found.for_dataset("train").refined_sources() == []


def test_the_stage_reads_what_dvc_lists(pair: Project, tmp_path: Path) -> None:
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, name)
    shutil.copytree(ROOT / "stages", "stages", ignore=shutil.ignore_patterns("__pycache__", ".dvcignore"))
    pair.run("git", "init", "--quiet")
    pair.run("dvc", "init", "--quiet")
    pair.records = tmp_path / "records"
    pair.records.mkdir()
    pair.stage("supervised", *RUN[1:])
    command = f"python -m stages.{' '.join(RUN)}"
    stage, run = drift.listed(pair.folder)[command], drift.recorded(pair.records, pair.folder)[command]
    assert stage.outs == {FOUND.as_posix()}
    checks = (drift.unlisted_files, drift.unread_deps, drift.unlisted_params, drift.unread_params, drift.unlisted_code)
    assert {check.__name__: check(stage, run) for check in checks if check(stage, run)} == {}
