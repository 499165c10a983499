"""The rules by which answers are scored, each against cases written by hand and a slow version; the bootstrap."""

from __future__ import annotations

import random
import string
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.errors import UserError
from stages.common.optional import import_optional
from stages.common.thoughts import END_MARKS
from stages.finer import matching
from stages.finer.matching import (
    accepted_golds,
    empty_golds,
    exact_match,
    extract_answer,
    f1,
    is_empty,
    normalise,
    strict_exact_match,
    strict_f1,
)
from stages.finer.score import generation
from stages.finer.score.bootstrap import bootstrap, bootstrap_difference
from stages.finer.score.generation import bleu, cosines, rouge_l

WORDS = [*"abcdefghijklmnopqrstuvwxy"]  # of which "a" is an article


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: Blue Jay", "Blue Jay"),
        ("It has a crest. Answer: Blue Jay\n", "Blue Jay"),
        ("Answer: first. Answer: second", "first. Answer: second"),  # after the first one, to the end
        ("Answer:", ""),
        ("no such mark", "no such mark"),
        ("answer: lower case is no mark", "answer: lower case is no mark"),
        ("Answer:Blue Jay</s>", "Blue Jay"),
        ("  Blue Jay </s>\n", "Blue Jay"),
        ("</s>Blue</s> Jay", "Blue Jay"),
        ("", ""),
    ],
)
def test_the_answer_is_what_follows_the_first_mark(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize("marker", END_MARKS)
def test_markers_of_the_end_are_removed(marker: str) -> None:
    assert extract_answer(f"Answer: Blue Jay {marker}") == "Blue Jay"
    assert extract_answer(f"Blue Jay{marker}{marker}") == "Blue Jay"


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Blue Jay.", "blue jay"),
        ("red-crowned tavo", "redcrowned tavo"),  # punctuation goes before words are told apart
        ("a.n. other", "other"),  # the dots go first, and "an" is left
        ("a cat, an owl and the theme", "cat owl and theme"),
        ("  Boeing\t737-300\n", "boeing 737300"),
        ("_under_ score", "under score"),
        ("«Œil» — ÉTÉ", "«œil» — été"),  # ASCII punctuation alone, as published
        ("the a an", ""),
        ("...", ""),
        ("", ""),
    ],
)
def test_normalisation_is_that_of_squad(text: str, normal: str) -> None:
    assert normalise(text) == normal


@pytest.mark.parametrize(
    ("prediction", "golds", "published", "strict"),
    [
        ("blue jay", ["Blue Jay"], 1, 1),
        ("It is a Blue Jay, I think", ["blue jay"], 1, 1),
        ("jay blue", ["blue jay"], 0, 0),
        ("catalog", ["cat"], 1, 0),  # letters within a word
        ("a concatenation", ["cat"], 1, 0),
        ("blue jays", ["blue jay"], 1, 0),
        ("blue", ["blue jay"], 0, 0),  # the answer within the gold does not count
        ("", ["blue jay"], 0, 0),
        ("blue heron", ["blue jay", "heron"], 1, 1),  # the best over golds
        ("anything", ["", "jay"], 1, 0),  # an empty gold is in everything
        ("anything", ["the", "jay"], 1, 0),
        ("", ["", "jay"], 1, 0),
        ("the first blue or jay", ["blue jay"], 0, 0),
        ("Blue-Jay", ["blue jay"], 0, 1),  # as published its hyphen goes without leaving a space
        ("Black footed Albatross", ["Black-footed Albatross"], 0, 1),
        ("a 737\u2011800", ["737-800"], 0, 1),  # a hyphen of another kind
        ("Brewer\u2019s_blackbird", ["Brewer's Blackbird"], 0, 1),  # nor is this apostrophe ASCII
        ("737800", ["737-800"], 1, 0),  # what the published rule joins
        ("blue  jay", ["Blue the Jay"], 1, 1),
    ],
)
def test_exact_match_by_hand(prediction: str, golds: list[str], published: int, strict: int) -> None:
    assert exact_match(prediction, golds) == published
    assert strict_exact_match(prediction, golds) == strict


def test_a_gold_is_looked_for_in_the_first_twenty_words() -> None:
    before = " ".join(f"w{number}" for number in range(19))
    for match in (exact_match, strict_exact_match):
        assert match(f"{before} jay", ["jay"]) == 1  # the 20th
        assert match(f"{before} blue jay", ["blue jay"]) == 0  # the 20th and 21st
        assert match(f"the {before} a jay", ["jay"]) == 1  # words count once normalised
    long = " ".join(f"w{number}" for number in range(25))
    assert exact_match(long, [long]) == strict_exact_match(long, [long]) == 1  # or it is the whole answer
    assert exact_match(f"{long} more", [long]) == strict_exact_match(f"{long} more", [long]) == 0


@pytest.mark.parametrize(
    ("prediction", "golds", "expected"),
    [
        ("blue jay", ["blue jay"], 1.0),
        ("jay, the blue", ["Blue Jay"], 1.0),  # a bag: order is nothing
        ("blue heron", ["blue jay"], 0.5),
        ("a big blue jay", ["blue jay"], 2 * (2 / 3) * 1 / (2 / 3 + 1)),
        ("blue blue blue", ["blue jay"], 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)),  # repeats count once
        ("heron", ["blue jay"], 0.0),
        ("", ["blue jay"], 0.0),
        ("blue heron", ["jay", "blue heron"], 1.0),
        ("catalog", ["cat"], 0.0),
    ],
)
def test_f1_by_hand(prediction: str, golds: list[str], expected: float) -> None:
    assert f1(prediction, golds) == pytest.approx(expected)
    assert strict_f1(prediction, golds) == pytest.approx(expected)


def test_f1_of_nothing_with_nothing_is_zero_as_in_squad() -> None:
    assert f1("", [""]) == f1("the", ["..."]) == f1("jay", [""]) == 0


def test_f1_cuts_the_gold_to_ten_words_and_the_strict_one_does_not() -> None:
    gold = " ".join(f"w{number}" for number in range(12))
    ten = " ".join(gold.split()[:10])
    assert f1(ten, [gold]) == 1
    assert strict_f1(ten, [gold]) == pytest.approx(2 * (10 / 12) / (1 + 10 / 12))
    assert f1("w11", [gold]) == 0
    assert strict_f1("w11", [gold]) > 0
    # The answer is not cut.
    assert f1(gold, [ten]) == pytest.approx(2 * (10 / 12) / (10 / 12 + 1))


def test_golds_that_are_not_there_are_refused() -> None:
    for score in (exact_match, f1, strict_exact_match, strict_f1):
        with pytest.raises(ValueError, match="no gold"):
            score("jay", [])
    for score in (strict_exact_match, strict_f1):
        with pytest.raises(ValueError, match="no gold with a word"):
            score("jay", ["", "the", "..."])
    assert empty_golds(["", "the", "jay", "!"]) == 3


def test_each_level_accepts_the_finer_ones() -> None:
    labels = ("bird", ["tavo", "passerine"], ["red tavo", "Tavo ruber"])
    assert accepted_golds("superordinate", *labels) == ["bird", "tavo", "passerine", "red tavo", "Tavo ruber"]
    assert accepted_golds("coarse", *labels) == ["tavo", "passerine", "red tavo", "Tavo ruber"]
    assert accepted_golds("fine", *labels) == ["red tavo", "Tavo ruber"]
    assert accepted_golds("superordinate", None, [], ["red tavo"]) == ["red tavo"]
    with pytest.raises(ValueError, match="granularity"):
        accepted_golds("finest", *labels)


def test_an_answer_with_no_answer_in_it() -> None:
    assert all(map(is_empty, ["", " ", "...", "the", "A!"]))
    assert not is_empty("jay")
    assert is_empty(extract_answer("I see a bird. Answer: </s>"))


def slow_normal(text: str) -> list[str]:
    """SQuAD's normalisation, a letter and then a word at a time; spaces are those of `str.split`."""
    kept = [letter for letter in text.lower() if letter not in string.punctuation]
    return [word for word in "".join(kept).split() if word not in ("a", "an", "the")]


def slow_exact(prediction: str, gold: str) -> bool:
    said, wanted = " ".join(slow_normal(prediction)[:20]), " ".join(slow_normal(gold))
    within = any(said[i : i + len(wanted)] == wanted for i in range(len(said) + 1))
    return within or slow_normal(prediction) == slow_normal(gold)


def slow_words(text: str) -> list[str]:
    """Of the strict rules: a hyphen is a space."""
    return slow_normal(text.replace("-", " "))


def slow_strict(prediction: str, gold: str) -> bool:
    said, wanted = slow_words(prediction), slow_words(gold)
    padded = f" {' '.join(said[:20])} "
    return bool(wanted) and (f" {' '.join(wanted)} " in padded or said == wanted)


def slow_f1(said: list[str], wanted: list[str]) -> float:
    left, common = list(wanted), 0
    for word in said:
        if word in left:
            left.remove(word)
            common += 1
    return 2 * common / (len(said) + len(wanted)) if common else 0.0


texts = st.lists(
    st.sampled_from([*WORDS, "an", "the", "The", "cat", "catalog", "blue-jay", "Jay.", "...", "É"]), max_size=26
).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(texts, st.lists(texts, min_size=1, max_size=3))
def test_scores_agree_with_a_slow_version(prediction: str, golds: list[str]) -> None:
    assert normalise(prediction).split() == slow_normal(prediction)
    assert exact_match(prediction, golds) == any(slow_exact(prediction, gold) for gold in golds)
    assert f1(prediction, golds) == pytest.approx(
        max(slow_f1(slow_normal(prediction), slow_normal(gold)[:10]) for gold in golds)
    )
    if any(map(slow_words, golds)):
        assert strict_exact_match(prediction, golds) == any(slow_strict(prediction, gold) for gold in golds)
        assert strict_f1(prediction, golds) == pytest.approx(
            max(slow_f1(slow_words(prediction), slow_words(gold)) for gold in golds)
        )
        # Stricter: never right where the published rule is not, but for hyphens.
        if "-" not in "".join([prediction, *golds]):
            assert strict_exact_match(prediction, golds) <= exact_match(prediction, golds)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_has_a_score(text: str) -> None:
    answer = extract_answer(text)
    assert exact_match(answer, [answer]) == 1
    assert 0 <= f1(answer, ["jay"]) <= 1
    assert extract_answer(f"Answer: {answer}") == answer
    assert normalise(normalise(text)) == normalise(text)


def slow_interval(values: list[float], classes: list[int], resamples: int) -> tuple[float, float]:
    """The bootstrap as it is told: lists of drawn images, one resample at a time, numbers from another generator."""
    draw = random.Random(5)
    there = [(value, label) for value, label in zip(values, classes, strict=True) if value == value]
    names = sorted({label for _, label in there})
    means = []
    for _ in range(resamples):
        drawn = [value for name in draw.choices(names, k=len(names)) for value, label in there if label == name]
        means.append(sum(drawn) / len(drawn))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_bootstrap_agrees_with_a_slow_version() -> None:
    draw = rng(3)
    classes = np.repeat(np.arange(12), draw.integers(1, 9, 12))
    # Classes that differ, so that the images are no independent draws.
    values = (draw.random(len(classes)) < np.linspace(0.1, 0.9, 12)[classes]).astype(float)
    values[::7] = np.nan
    found = bootstrap(values, classes, 6000, rng())
    low, high = slow_interval(values.tolist(), classes.tolist(), 6000)
    assert found.mean == pytest.approx(np.nanmean(values))
    assert found.low == pytest.approx(low, abs=0.012)
    assert found.high == pytest.approx(high, abs=0.012)
    assert (found.values, found.left_out, found.classes) == (
        np.isfinite(values).sum(),
        np.isnan(values).sum(),
        len(set(classes[np.isfinite(values)])),
    )


def test_classes_are_drawn_whole() -> None:
    """Ten images that say the same are one witness: the interval is that of the classes, not of the images."""
    classes = np.repeat(np.arange(8), 10)
    values = np.repeat(np.array([0, 1, 0, 1, 0, 1, 0, 1.0]), 10)
    many, one = bootstrap(values, classes, 4000, rng()), bootstrap(values[::10], classes[::10], 4000, rng())
    assert (many.low, many.high) == (one.low, one.high)
    assert many.low is not None and many.low < 0.25


def test_many_classes_are_drawn_in_pieces_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    values, classes = rng(1).random(50), np.arange(50)
    whole = bootstrap(values, classes, 300, rng())
    monkeypatch.setattr("stages.finer.score.bootstrap.DRAWS_AT_ONCE", 350)
    assert bootstrap(values, classes, 300, rng()) == whole


def test_without_variance_the_interval_is_the_mean() -> None:
    found = bootstrap(np.ones(6), np.array([0, 0, 1, 1, 2, 2]), 100, rng())
    assert (found.mean, found.low, found.high) == (1.0, 1.0, 1.0)


def test_one_class_has_no_interval_and_no_value_no_mean() -> None:
    found = bootstrap(np.array([0.0, 1.0]), np.array([4, 4]), 100, rng())
    assert (found.mean, found.low, found.high, found.classes) == (0.5, None, None, 1)
    found = bootstrap(np.array([np.nan, np.nan]), np.array([4, 5]), 100, rng())
    assert (found.mean, found.low, found.values, found.left_out) == (None, None, 0, 2)


def test_differences_are_of_pairs() -> None:
    first, second = np.array([1.0, 1.0, np.nan, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, np.nan, 0.0])
    found = bootstrap_difference(first, second, np.array([0, 1, 2, 3, 4]), 500, rng())
    assert found.mean == pytest.approx(2 / 3)  # not 3/4 - 2/4, the difference of both means
    assert (found.values, found.left_out, found.classes) == (3, 2, 3)
    same = bootstrap_difference(first, first, np.array([0, 1, 2, 3, 4]), 500, rng())
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_a_pair_gains_from_being_one() -> None:
    """Two columns that rise and fall together differ by less than each varies."""
    classes = np.arange(40)
    first = rng(2).random(40)
    apart, alone = (
        bootstrap_difference(first, first - 0.1, classes, 500, rng()),
        bootstrap(first, classes, 500, rng()),
    )
    assert apart.low == pytest.approx(0.1) and apart.high == pytest.approx(0.1)
    assert alone.low is not None and alone.high is not None and alone.high - alone.low > 0.05


def test_generated_lists_are_compared_by_known_figures() -> None:
    assert rouge_l(["red crown; long tail"], ["red crown; long tail"]) == [1.0]
    # The longest common run of words in order: "a c" of "a b c" and "a c d".
    assert rouge_l(["a b c"], ["a c d"]) == [pytest.approx(2 / 3)]
    assert rouge_l([""], ["red crown"]) == [0.0]
    assert rouge_l(["tails"], ["tail"]) == [0.0]  # no stemming
    score, signature = bleu(["the red crown of it", "long tail"], ["the red crown of it", "long tail"])
    assert score == pytest.approx(100)
    assert "tok:13a" in signature and "version:" in signature

    def encode(texts: object) -> np.ndarray:
        assert list(texts) == ["x", "y"]  # type: ignore[call-overload]
        return np.array([[1, 0], [0.6, 0.8]], dtype=np.float32)

    assert cosines(["x", "y", "x"], ["x", "x", "y"], encode) == pytest.approx([1, 0.6, 0.6])


def test_a_package_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^tune needs no-such-thing; pip install -r requirements-finer\.txt$"):
        import_optional("no_such_thing.part", "tune")
    assert import_optional("json", "tests").dumps([]) == "[]"
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(UserError, match="rouge-score; pip install"):
        generation.rouge_l(["x"], ["x"])
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(UserError, match="sacrebleu; pip install"):
        generation.bleu(["x"], ["x"])


def test_published_and_strict_words_are_the_paper_s() -> None:
    assert (matching.ANSWER_WORDS, matching.GOLD_WORDS) == (20, 10)
