"""refine: the selection of descriptions against a greedy loop, one sentence after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stages.common.params import LABEL, Refine
from stages.refine.dataset import Text, texts_table
from stages.refine.select import EXACT, RANK, SIMILAR, Selection, select

DIMENSIONS = 6
SHORT = np.full(20, 5, dtype=np.int32)
"""Numbers of tokens within any context."""


@dataclass(frozen=True)
class Case:
    texts: list[str]
    embeddings: np.ndarray
    similarity: np.ndarray
    threshold: float
    top_k: int

    def select(self) -> Selection:
        return select(self.texts, self.embeddings, self.similarity, self.threshold, self.top_k)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Sentences of which some repeat an earlier one's text, some its embedding almost, some are their own."""
    count = draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    texts: list[str] = []
    rows = np.zeros((count, DIMENSIONS))
    for index in range(count):
        kind = draw(st.sampled_from(["new", "near", "same"])) if index else "new"
        earlier = draw(st.integers(0, index - 1)) if index else 0
        texts.append(texts[earlier] if kind == "same" else f"sentence {index}")
        if kind == "same":
            rows[index] = rows[earlier]
        elif kind == "near":
            rows[index] = rows[earlier] + draw(st.sampled_from([0.02, 0.1, 0.3])) * rng.normal(size=DIMENSIONS)
        else:
            rows[index] = rng.normal(size=DIMENSIONS)
    threshold = draw(st.sampled_from([0.5, 0.9, 0.99, 1.01]))
    embeddings = unit(rows)
    cosines = embeddings.astype(np.float64) @ embeddings.astype(np.float64).T
    assume(np.abs(cosines - threshold).min() > 1e-6)  # equality is decided in float32: another test
    similarity = rng.choice([0.1, 0.2, 0.3, 0.4], count).astype(np.float32)  # with ties
    return Case(texts, embeddings, similarity, threshold, draw(st.integers(1, 12)))


def greedy(case: Case) -> tuple[list[bool], list[str | None]]:
    """What is kept and why the rest is not, by comparing each sentence with every one kept before it."""
    kept: list[int] = []
    because: list[str | None] = [None] * len(case.texts)
    for row, text in enumerate(case.texts):
        if text in case.texts[:row]:
            because[row] = EXACT
        elif any(float(np.dot(case.embeddings[row], case.embeddings[k])) >= case.threshold for k in kept):
            because[row] = SIMILAR
        else:
            kept.append(row)
    best = sorted(kept, key=lambda row: (-case.similarity[row], row))
    for row in best[case.top_k :]:
        because[row] = RANK
    return [reason is None for reason in because], because


@settings(max_examples=200, deadline=None)
@given(cases())
def test_selection_equals_the_greedy_loop(case: Case) -> None:
    chosen = case.select()
    kept, because = greedy(case)
    assert chosen.kept.tolist() == kept
    assert chosen.dropped_because == because


@settings(max_examples=100, deadline=None)
@given(cases())
def test_nothing_kept_repeats_another_and_every_repeat_names_its_original(case: Case) -> None:
    chosen = case.select()
    kept = np.flatnonzero(chosen.kept)
    cosines = case.embeddings.astype(np.float64) @ case.embeddings.astype(np.float64).T
    between = cosines[np.ix_(kept, kept)][~np.eye(len(kept), dtype=bool)]
    assert (between < case.threshold).all()
    assert len({case.texts[row] for row in kept}) == len(kept)
    assert chosen.kept.any(), "the first sentence, or one that is closer to the label, is always kept"
    for row, reason in enumerate(chosen.dropped_because):
        original = int(chosen.duplicate_of[row])
        assert chosen.kept[row] == (reason is None)
        assert (original >= 0) == (reason in (EXACT, SIMILAR))
        if original >= 0:
            assert original < row
            assert chosen.dropped_because[original] in (None, RANK), "an original is no repeat itself"
        if reason == SIMILAR:
            assert cosines[row, original] >= case.threshold
        if reason == EXACT:
            first = case.texts.index(case.texts[row])
            assert original in (first, chosen.duplicate_of[first])


@settings(max_examples=60, deadline=None)
@given(cases())
def test_the_top_k_are_those_closest_to_the_label_prompt(case: Case) -> None:
    chosen = case.select()
    ranked = [row for row, reason in enumerate(chosen.dropped_because) if reason == RANK]
    assert chosen.kept.sum() <= case.top_k
    if ranked:
        assert chosen.kept.sum() == case.top_k
        lowest = min((case.similarity[row], -row) for row in np.flatnonzero(chosen.kept))
        assert all((case.similarity[row], -row) < lowest for row in ranked), "the earlier one where two are equal"


def test_a_cosine_equal_to_the_threshold_is_a_repeat() -> None:
    rows = np.array([[1, 0], [0.5, np.sqrt(0.75)]], dtype=np.float32)
    similarity = np.zeros(2, dtype=np.float32)
    assert select(["a", "b"], rows, similarity, 0.5, 9).dropped_because == [None, SIMILAR]
    assert select(["a", "b"], rows, similarity, 0.51, 9).dropped_because == [None, None]


def test_a_sentence_is_compared_with_kept_ones_only() -> None:
    """b repeats a and c repeats b, but c does not repeat a: c stays, for b is gone."""
    angles = np.deg2rad([0.0, 20.0, 40.0])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    chosen = select(["a", "b", "c"], rows, np.zeros(3, dtype=np.float32), 0.9, 9)
    assert chosen.kept.tolist() == [True, False, True]
    assert chosen.duplicate_of.tolist() == [-1, 0, -1]


def test_an_exact_repeat_of_a_dropped_sentence_points_at_the_one_that_was_kept() -> None:
    rows = unit(np.array([[1, 0], [1, 0.01], [0, 1], [1, 0.01]]))
    chosen = select(["a", "b", "c", "b"], rows, np.zeros(4, dtype=np.float32), 0.99, 9)
    assert chosen.dropped_because == [None, SIMILAR, None, EXACT]
    assert chosen.duplicate_of.tolist() == [-1, 0, -1, 0]


def test_two_truncated_texts_are_not_similar_because_of_what_the_model_sees() -> None:
    rows, similarity = unit(np.ones((4, 3))), np.zeros(4, dtype=np.float32)
    truncated = np.array([True, True, False, True])
    chosen = select(["a", "b", "c", "b"], rows, similarity, 0.99, 9, truncated)
    assert chosen.dropped_because == [None, None, SIMILAR, EXACT]
    texts = [Text(0, LABEL, "x"), *(Text(0, "one", text) for text in "abcd")]
    tokens = np.array([5, 40, 33, 32, 90], dtype=np.int32)
    table = texts_table(texts, unit(np.ones((5, 3))), tokens, 32, ["one"], make_refine())
    assert table["truncated"].to_pylist() == [False, True, True, False, True]
    assert table["tokens"].to_pylist() == tokens.tolist()
    assert table["kept"].to_pylist() == [None, True, True, False, True]


def make_refine(top_k: int = 50, threshold: float = 0.99) -> Refine:
    return Refine(
        sources="all",
        label_prompt="a {name}",
        cosine_threshold=threshold,
        top_k=top_k,
        waffle_pairs=1,
        batch_size=8,
    )


def test_the_union_is_joined_in_the_order_of_the_chosen_sources() -> None:
    """The same sentence in two sources is kept from the source that is named first, wherever its rows are."""
    texts = [Text(0, LABEL, "a x"), Text(1, LABEL, "a y")]
    texts += [Text(0, "one", "s"), Text(0, "one", "t"), Text(0, "two", "s"), Text(1, "two", "s"), Text(0, "other", "s")]
    place = {text: row for row, text in enumerate(dict.fromkeys(text.description for text in texts))}
    embeddings = np.eye(4, dtype=np.float32)[[place[text.description] for text in texts]]
    forward = texts_table(texts, embeddings, SHORT[: len(texts)], 77, ["one", "two"], make_refine())
    assert forward["kept"].to_pylist() == [None, None, True, True, False, True, None]
    assert forward["duplicate_of"].to_pylist() == [None, None, None, None, 2, None, None]
    backward = texts_table(texts, embeddings, SHORT[: len(texts)], 77, ["two", "one"], make_refine())
    assert backward["kept"].to_pylist() == [None, None, False, True, True, True, None]
    assert backward["dropped_because"].to_pylist() == [None, None, EXACT, None, None, None, None]
    assert backward["duplicate_of"].to_pylist() == [None, None, 4, None, None, None, None]


def test_label_similarity_is_the_cosine_to_the_own_label_prompt() -> None:
    rng = np.random.default_rng(0)
    embeddings = unit(rng.normal(size=(6, 5)))
    texts = [Text(0, LABEL, "a"), Text(1, LABEL, "b"), *(Text(row % 2, "one", f"s{row}") for row in range(4))]
    table = texts_table(texts, embeddings, SHORT[: len(texts)], 77, ["one"], make_refine(top_k=1, threshold=1.01))
    expected = [float(embeddings[row] @ embeddings[text.label]) for row, text in enumerate(texts)]
    assert table["label_similarity"].to_pylist() == pytest.approx(expected, abs=1e-6)
    for label in (0, 1):
        rows = [row for row in range(2, 6) if texts[row].label == label]
        best = max(rows, key=lambda row: expected[row])
        assert [table["kept"][row].as_py() for row in rows] == [row == best for row in rows]
