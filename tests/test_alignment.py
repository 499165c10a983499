"""score: the factorised sums against explicit loops over views, descriptions and runs, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.alignment import draw_places, pool_weights, softmax_by_group
from stages.common.columns import embedding_column
from stages.common.errors import UserError
from stages.common.methods import ALL, METHODS, REFINED, WHOLE, Method
from stages.common.params import Score
from stages.common.ranking import Outcome, Tally, predictions_table
from stages.common.ranks import best, rank
from stages.score.dataset import tie_lines
from stages.score.methods import available, class_vectors, first_equals
from stages.score.outcomes import Classes, fetch, prepare, score_batch
from stages.score.stream import ViewBatch

DIMENSIONS = 8
SEED = 5
TEXTS = Path("data/toy/tiny/texts.parquet")


def make_score(
    normalize: bool = True, views: int | str = 7, runs: int = 3, image: float = 1.5, text: float = 1.0
) -> Score:
    return Score.model_validate(
        {
            "iou_threshold": 0.8,
            "views_per_run": views,
            "runs": runs,
            "image_scale": image,
            "text_scale": text,
            "normalize": normalize,
        }
    )


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@dataclass(frozen=True)
class Picture:
    """An image's views as they are stored: the whole image first."""

    image_id: str
    embeddings: np.ndarray
    """[V, D] float16."""
    similarity: np.ndarray
    """[V] float32."""
    pools: dict[str, list[int]]


def make_pictures(seed: int, sizes: Sequence[int]) -> list[Picture]:
    rng = np.random.default_rng(seed)
    pictures = []
    for index, size in enumerate(sizes):
        rows = unit(rng.normal(size=(1 + size, DIMENSIONS)) + rng.normal(size=DIMENSIONS))
        refined = sorted(rng.choice(np.arange(1, 1 + size), rng.integers(1, size + 1), replace=False).tolist())
        pools = {ALL: list(range(1, 1 + max(1, size - 2))), REFINED: refined}
        pictures.append(Picture(f"{index}.jpg", rows.astype(np.float16), (rows @ rows[0]).astype(np.float32), pools))
    return pictures


def make_batch(pictures: Sequence[Picture]) -> ViewBatch:
    longest = max(len(picture.similarity) for picture in pictures)
    shape = (len(pictures), longest)
    embeddings = np.zeros((*shape, DIMENSIONS), dtype=np.float16)
    similarity = np.zeros(shape, dtype=np.float32)
    pools = {name: np.zeros(shape, dtype=bool) for name in (ALL, REFINED)}
    for place, picture in enumerate(pictures):
        embeddings[place, : len(picture.similarity)] = picture.embeddings
        similarity[place, : len(picture.similarity)] = picture.similarity
        for name, rows in picture.pools.items():
            pools[name][place, rows] = True
    return ViewBatch(0, embeddings, similarity, pools)


def make_texts(seed: int, classes: int) -> pa.Table:
    """Texts of every source in mixed order; descriptions of `cupl` are partly kept."""
    rng = np.random.default_rng(seed)
    rows = []
    for source in ("label", "template", "clip-d", "waffle", "cupl", "attrvr_des"):
        for label in range(classes):
            for index in range(1 if source == "label" else int(rng.integers(1, 5))):
                refined = source in ("cupl", "attrvr_des")
                kept = None if not refined else bool(rng.random() < 0.6) or (source == "cupl" and index == 0)
                rows.append((label, source, kept))
    rows = [rows[place] for place in rng.permutation(len(rows))]
    embeddings = unit(rng.normal(size=(len(rows), DIMENSIONS))).astype(np.float32)
    return pa.table(
        {
            "label": pa.array([row[0] for row in rows], pa.int32()),
            "source": [row[1] for row in rows],
            "label_similarity": pa.array(rng.uniform(0.2, 0.9, len(rows)), pa.float32()),
            "kept": pa.array([row[2] for row in rows], pa.bool_()),
            "embedding": embedding_column(embeddings),
        }
    )


def drawn_rows(picture: Picture, pool: str, score: Score) -> list[list[int]]:
    """The rows of `picture` that each run uses, a view as often as it is drawn."""
    rows = picture.pools[pool]
    if score.views_per_run == "all":
        return [rows]
    places = draw_places(SEED, [picture.image_id], score.runs, score.views_per_run)[0]
    return [[rows[int(place * len(rows))] for place in run] for run in places]


def softmax(values: Sequence[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / math.fsum(powers) for power in powers]


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def double_sum(picture: Picture, texts: list[dict], pool: str, label: int, kept: bool, score: Score) -> list[float]:
    """score(x, y) = sum_ij w_i v_j cos(I_i, T_j) of each run, not factorised."""
    chosen = [row for row in texts if row["label"] == label and (row["kept"] if kept else row["source"] == "cupl")]
    v = softmax([math.exp(score.text_scale) * row["label_similarity"] for row in chosen])
    found = []
    for rows in drawn_rows(picture, pool, score):
        w = softmax([math.exp(score.image_scale) * float(picture.similarity[row]) for row in rows])
        images = [picture.embeddings[row].astype(np.float64).tolist() for row in rows]
        total = math.fsum(
            w_i * v_j * dot(image, text["embedding"])
            for w_i, image in zip(w, images, strict=True)
            for v_j, text in zip(v, chosen, strict=True)
        )
        if score.normalize:
            # |sum_i w_i I_i|^2 is a double sum as well.
            a = math.fsum(
                p * q * dot(x, y) for p, x in zip(w, images, strict=True) for q, y in zip(w, images, strict=True)
            )
            b = math.fsum(
                p * q * dot(x["embedding"], y["embedding"])
                for p, x in zip(v, chosen, strict=True)
                for q, y in zip(v, chosen, strict=True)
            )
            total /= math.sqrt(a) * math.sqrt(b)
        found.append(total)
    return found


def score_with(
    pictures: Sequence[Picture], texts: pa.Table, classes: int, score: Score, names: Sequence[str]
) -> dict[str, Outcome]:
    methods = [method for method in METHODS if method.name in names]
    vectors = map(torch.from_numpy, class_vectors(TEXTS, texts, methods, classes, score))
    compared = [Classes(method, rows) for method, rows in zip(methods, vectors, strict=True)]
    labels = np.zeros(len(pictures), dtype=np.int64)
    ids = [picture.image_id for picture in pictures]
    inputs = prepare(make_batch(pictures), ids, labels, score, SEED, torch.device("cpu"))
    outcomes = fetch(
        score_batch(inputs, compared, score).ranks, [1 if method.views == WHOLE else score.runs for method in methods]
    )
    return {method.name: outcome for method, outcome in zip(methods, outcomes, strict=True)}


CROSS = {
    "wca": (ALL, False),
    "bifta-views": (REFINED, False),
    "bifta-texts": (ALL, True),
    "bifta": (REFINED, True),
}


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("views", "runs"), [(7, 3), (1, 4), (40, 2), ("all", 1)])
def test_scores_equal_the_double_sum_over_views_and_descriptions(normalize: bool, views: int | str, runs: int) -> None:
    score = make_score(normalize, views, runs)
    pictures, classes = make_pictures(1, [6, 1, 9, 3]), 4
    texts = make_texts(2, classes)
    rows = texts.to_pylist()
    outcomes = score_with(pictures, texts, classes, score, list(CROSS))
    for name, (pool, kept) in CROSS.items():
        outcome = outcomes[name]
        assert outcome.score.shape == (4, runs)
        for place, picture in enumerate(pictures):
            expected = np.array([double_sum(picture, rows, pool, label, kept, score) for label in range(classes)])
            assert outcome.score[place] == pytest.approx(expected.max(axis=0), abs=1e-4)
            assert outcome.predicted[place].tolist() == expected.argmax(axis=0).tolist()
            ordered = np.sort(expected, axis=0)
            assert outcome.margin[place] == pytest.approx(ordered[-1] - ordered[-2], abs=1e-4)


def test_published_scales_stay_exact() -> None:
    """exp(4) and exp(2): steep weights, as published."""
    score = make_score(False, 20, 2, image=4.0, text=2.0)
    pictures, texts = make_pictures(7, [12, 5]), make_texts(8, 3)
    rows = texts.to_pylist()
    outcome = score_with(pictures, texts, 3, score, ["bifta"])["bifta"]
    for place, picture in enumerate(pictures):
        expected = np.array([double_sum(picture, rows, REFINED, label, True, score) for label in range(3)])
        assert outcome.score[place] == pytest.approx(expected.max(axis=0), abs=1e-4)


@pytest.mark.parametrize("mean", ["normalized", "plain"])
def test_whole_image_methods_compare_the_whole_image_once(mean: str) -> None:
    pictures, classes = make_pictures(3, [4, 7]), 3
    score = make_score().model_copy(update={"descriptor_mean": mean})
    unit_length = ["clip-e", "cupl", *(["clip-d", "waffle"] if mean == "normalized" else [])]
    texts = make_texts(4, classes)
    outcomes = score_with(pictures, texts, classes, score, [m.name for m in METHODS if m.views == WHOLE])
    assert list(outcomes) == ["clip", "clip-e", "clip-d", "waffle", "cupl"]
    source = {"clip": "label", "clip-e": "template", "clip-d": "clip-d", "waffle": "waffle", "cupl": "cupl"}
    for name, outcome in outcomes.items():
        assert outcome.score.shape == (2, 1)
        for place, picture in enumerate(pictures):
            expected = []
            for label in range(classes):
                rows = [r["embedding"] for r in texts.to_pylist() if (r["label"], r["source"]) == (label, source[name])]
                total = [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]
                length = math.sqrt(dot(total, total)) if name in unit_length else 1.0
                expected.append(dot(picture.embeddings[0].astype(np.float64).tolist(), total) / length)
            assert outcome.score[place, 0] == pytest.approx(max(expected), abs=1e-5)
            assert outcome.predicted[place, 0] == int(np.argmax(expected))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_class_vectors_equal_the_sum_over_texts(method: Method, normalize: bool) -> None:
    classes, score = 5, make_score(normalize, text=2.0)
    texts = make_texts(11, classes)
    [vectors] = class_vectors(TEXTS, texts, [method], classes, score)
    assert vectors.shape == (classes, DIMENSIONS)
    assert vectors.dtype == np.float32
    for label in range(classes):
        rows = [r for r in texts.to_pylist() if r["label"] == label]
        rows = [r for r in rows if (r["kept"] if method.texts == "kept" else r["source"] == method.texts)]
        weighted = method.combine == "weighted"
        weights = (
            softmax([math.exp(2.0) * r["label_similarity"] for r in rows]) if weighted else [1 / len(rows)] * len(rows)
        )
        total = [
            math.fsum(w * x for w, x in zip(weights, c, strict=True))
            for c in zip(*(r["embedding"] for r in rows), strict=True)
        ]
        if method.name in ("clip-e", "cupl", "clip-d", "waffle") or (weighted and normalize):
            length = math.sqrt(dot(total, total))
            total = [value / length for value in total]
        assert vectors[label] == pytest.approx(total, abs=1e-6)


def test_classes_with_the_same_texts_tie_and_the_lower_label_wins() -> None:
    pictures, texts = make_pictures(5, [6, 4, 5]), make_texts(6, 3)
    same = texts.filter(pc.field("label") == 1)
    again = same.set_column(0, "label", pa.array([3] * len(same), pa.int32()))
    texts = pa.concat_tables([texts, again.take(list(reversed(range(len(again)))))])
    [vectors] = class_vectors(TEXTS, texts, [METHODS[4]], 4, make_score())
    assert first_equals(vectors).tolist() == [0, 1, 2, 1], "the order of the texts makes no difference"
    first = {"clip": np.arange(4), "cupl": np.array([0, 1, 2, 1]), "clip-d": np.array([0, 1, 2, 1])}
    assert tie_lines(first, np.array([0, 3, 3, 1])) == [
        "1 of 4 classes have the same texts as a class of a lower label, which wins; top-1 is at most 50.00 with cupl, "
        "clip-d"
    ]
    ones = torch.from_numpy(vectors)
    ones[3] += 1e-6 * torch.rand(ones.shape[1], generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(np.stack([p.embeddings[:1].astype(np.float32) for p in pictures]))
    scores = Classes(METHODS[4], ones, torch.from_numpy(first["cupl"])).scores(images)
    assert torch.equal(scores[..., 3], scores[..., 1])


def test_a_class_without_texts_is_refused() -> None:
    texts = make_texts(0, 3)
    with pytest.raises(UserError, match=r"has no texts of 'cupl' for labels \[3\]"):
        class_vectors(TEXTS, texts, METHODS[4:5], 4, make_score())


def test_methods_without_their_source_are_left_out_with_a_line() -> None:
    texts = make_texts(0, 3)
    assert available(texts) == (list(METHODS), [])
    without = texts.filter(pa.array([source != "cupl" for source in texts["source"].to_pylist()]))
    methods, lines = available(without)
    assert [m.name for m in methods] == ["clip", "clip-e", "clip-d", "waffle", "bifta-texts", "bifta"]
    assert len(lines) == 3
    assert all(
        "'cupl'" in line and name in line for line, name in zip(lines, ("cupl", "wca", "bifta-views"), strict=True)
    )


def test_a_view_that_is_drawn_twice_counts_twice() -> None:
    pool = torch.tensor([[False, True, True, False, True]])
    similarity = torch.tensor([[1.0, 0.5, 0.7, 0.9, 0.6]])
    places = torch.tensor([[[0.0, 0.32, 0.99, 0.34], [0.5, 0.5, 0.6, 0.4]]], dtype=torch.float64)
    weights = pool_weights(pool, similarity, 0.0, places)[0].double().numpy()
    powers = np.exp([0.5, 0.7, 0.6])
    first = np.array([2, 1, 1]) * powers
    assert weights[0] == pytest.approx([0, *(first[:2] / first.sum()), 0, first[2] / first.sum()], abs=1e-6)
    assert weights[1] == pytest.approx([0, 0, 1, 0, 0], abs=1e-6)


def test_every_kept_view_once() -> None:
    pool = torch.tensor([[False, True, True, False], [False, False, False, True]])
    similarity = torch.tensor([[1.0, 0.25, 0.5, 0.9], [1.0, 0.0, 0.0, -0.5]])
    weights = pool_weights(pool, similarity, 0.0, None)
    assert weights.shape == (2, 1, 4)
    share = math.exp(0.25) / (math.exp(0.25) + math.exp(0.5))
    assert weights[0, 0].tolist() == pytest.approx([0, share, 1 - share, 0], abs=1e-6)
    assert weights[1, 0].tolist() == [0, 0, 0, 1]


@settings(max_examples=40, deadline=None)
@given(order=st.permutations(range(5)), count=st.integers(1, 5))
def test_draws_depend_on_seed_and_image_alone(order: list[int], count: int) -> None:
    ids = [f"{index}.jpg" for index in range(5)]
    chosen = [ids[index] for index in order[:count]]
    together = draw_places(0, chosen, 3, 6)
    assert together.shape == (count, 3, 6)
    assert ((together >= 0) & (together < 1)).all()
    for place, image_id in enumerate(chosen):
        assert (together[place] == draw_places(0, [image_id], 3, 6)[0]).all()
        assert (together[place] != draw_places(1, [image_id], 3, 6)[0]).any()
    if count > 1:
        assert (together[0] != together[1]).any()


def test_scores_do_not_depend_on_the_other_images_of_a_batch() -> None:
    pictures, score = make_pictures(9, [3, 11, 1, 6]), make_score()
    texts = make_texts(10, 4)
    together = score_with(pictures, texts, 4, score, list(CROSS))
    turned = score_with(pictures[::-1], texts, 4, score, list(CROSS))
    for name in CROSS:
        for place, picture in enumerate(pictures):
            alone = score_with([picture], texts, 4, score, [name])[name]
            for other in (alone.score[0], turned[name].score[3 - place]):
                assert other == pytest.approx(together[name].score[place], abs=1e-6)
            assert (alone.predicted[0] == together[name].predicted[place]).all()


def ranked(scores: torch.Tensor, labels: torch.Tensor) -> Outcome:
    [outcome] = fetch(rank(scores, labels), [scores.shape[1]])
    return outcome


def test_the_lower_label_wins_a_tie() -> None:
    scores = torch.tensor([[[0.1, 0.5, 0.5, 0.2]], [[0.3, 0.3, 0.3, 0.3]]])
    outcome = ranked(scores, torch.tensor([2, 3]))
    assert outcome.predicted.tolist() == [[1], [0]]
    assert outcome.score.tolist() == [[0.5], [pytest.approx(0.3)]]
    assert outcome.margin.tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("classes", [6, 40, 1000])
def test_the_lower_labels_win_the_ties_of_the_first_five(classes: int) -> None:
    scores = torch.zeros(classes, 1, classes)
    scores[:, :, 3] = 1.0  # first; then 0, 1, 2 and 4
    outcome = ranked(scores, torch.arange(classes))
    assert np.flatnonzero(outcome.in_top[:, 0]).tolist() == [0, 1, 2, 3, 4]


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.lists(st.integers(0, 4), min_size=8, max_size=8), min_size=1, max_size=4),
    label=st.integers(0, 7),
)
def test_ranks_equal_a_stable_sort(values: list[list[int]], label: int) -> None:
    outcome = ranked(torch.tensor([values], dtype=torch.float32), torch.tensor([label]))
    for run, scores in enumerate(values):
        order = sorted(range(8), key=lambda c: (-scores[c], c))
        assert outcome.predicted[0, run] == order[0]
        assert outcome.margin[0, run] == scores[order[0]] - scores[order[1]]
        assert outcome.in_top[0, run] == (label in order[:5])
    labels, highest = best(torch.tensor([values], dtype=torch.float32))
    means = np.array(values, dtype=np.float32).mean(axis=0, keepdims=True)[0]
    assert labels[0].tolist() == sorted(range(8), key=lambda c: (-means[c], c))[:5]
    assert highest[0].tolist() == pytest.approx(means[labels[0].numpy()].tolist())


def test_a_single_class_has_no_margin() -> None:
    outcome = ranked(torch.tensor([[[0.4], [0.6]]]), torch.tensor([0]))
    assert outcome.predicted.tolist() == [[0, 0]]
    assert outcome.margin.tolist() == [[0.0, 0.0]]
    assert outcome.in_top.all()


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.tuples(st.integers(0, 3), st.floats(-1, 1)), min_size=1, max_size=20),
    scale=st.sampled_from([1.0, 50.0, 1e3, 1e6]),
)
def test_softmax_sums_to_one_in_each_group_at_any_scale(values: list[tuple[int, float]], scale: float) -> None:
    groups = np.array([group for group, _ in values])
    numbers = np.array([value for _, value in values], dtype=np.float32)
    weights = softmax_by_group(numbers * np.float32(scale), groups, 4)
    assert weights.dtype == np.float64
    for group in set(groups.tolist()):
        inside = groups == group
        assert weights[inside].sum() == pytest.approx(1.0)
        expected = softmax((numbers[inside] * np.float32(scale)).astype(float).tolist())
        assert weights[inside].tolist() == pytest.approx(expected, abs=1e-12)


def test_a_tally_is_percent_over_images_mean_and_deviation_over_runs() -> None:
    tally = Tally(runs=2, classes=3)
    outcome = Outcome(
        predicted=np.array([[0, 0], [1, 2], [2, 2]]),
        score=np.zeros((3, 2)),
        margin=np.zeros((3, 2)),
        in_top=np.array([[True, True], [True, False], [False, False]]),
    )
    tally.add(outcome, np.array([0, 1, 0]))
    tally.add(outcome, np.array([0, 1, 0]))
    found = tally.metrics()
    assert found["top1"] == pytest.approx((200 / 3 + 100 / 3) / 2, abs=1e-3)
    assert found["top5"] == pytest.approx(50.0)
    assert found["std"] == pytest.approx(np.std([200 / 3, 100 / 3], ddof=1), abs=1e-3)
    assert (found["images"], found["runs"]) == (6, 2)
    once = Tally(runs=1, classes=3)
    once.add(
        Outcome(*(array[:, :1] for array in (outcome.predicted, outcome.score, outcome.margin, outcome.in_top))),
        np.array([0, 1, 0]),
    )
    assert once.metrics()["std"] == 0.0


def test_mean_per_class_is_that_of_a_loop_over_classes_and_runs() -> None:
    rng = np.random.default_rng(5)
    labels = rng.choice([0, 1, 3, 4], 90, p=[0.7, 0.15, 0.1, 0.05])  # class 2 has no image
    predicted = np.where(rng.random((90, 4)) < 0.4, labels[:, None], rng.integers(0, 5, (90, 4)))
    tally = Tally(runs=4, classes=5)
    for part in np.array_split(np.arange(90), 7):
        tally.count(predicted[part] == labels[part, None], labels[part])
    by_run = []
    for run in range(4):
        shares = [
            np.mean([predicted[i, run] == label for i in np.flatnonzero(labels == label)]) for label in set(labels)
        ]
        by_run.append(100 * float(np.mean(shares)))
    assert tally.metrics()["mean_per_class"] == pytest.approx(np.mean(by_run), abs=1e-4)
    assert tally.metrics()["mean_per_class"] != pytest.approx(tally.metrics()["top1"], abs=1)
    assert np.isnan(tally.recalls()).tolist() == [False, False, True, False, False]


def test_prediction_rows_go_image_by_image_method_by_method_run_by_run() -> None:
    pictures, score = make_pictures(0, [3, 4]), make_score(runs=2)
    outcomes = score_with(pictures, make_texts(1, 3), 3, score, ["clip", "wca"])
    methods = [method for method in METHODS if method.name in outcomes]
    names = [method.name for method in methods]
    table = predictions_table(["a", "b"], np.array([2, 1]), names, list(outcomes.values())).to_pylist()
    assert [(r["image_id"], r["label"], r["method"], r["run"]) for r in table] == [
        (image, label, method, run)
        for image, label in (("a", 2), ("b", 1))
        for method, run in (("clip", 0), ("wca", 0), ("wca", 1))
    ]
    for row in table:
        place = ("a", "b").index(row["image_id"])
        assert row["predicted"] == outcomes[row["method"]].predicted[place, row["run"]]
        assert row["score"] == pytest.approx(outcomes[row["method"]].score[place, row["run"]])
        assert row["margin"] == pytest.approx(outcomes[row["method"]].margin[place, row["run"]])


def test_broken_scores_are_never_right() -> None:
    outcome = ranked(torch.full((1, 1, 9), torch.nan), torch.tensor([4]))
    assert not outcome.in_top.any()
