"""Differences of top-1 to a reference method: their interval, and how the tables show them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from test_report import _in_a_project, make_inputs, table_rows  # noqa: F401

from stages.common import paths
from stages.common.errors import UserError
from stages.report.__main__ import main
from stages.report.differences import difference, differences
from stages.report.rows import Difference
from stages.report.table import markdown, plain
from stages.report.write import write_report


def shares(seed: int, images: int, chance: float, runs: int, like: np.ndarray | None = None) -> np.ndarray:
    """[N] shares of runs that are right, of which half are those of `like`."""
    rng = np.random.default_rng(seed)
    found = rng.binomial(runs, rng.beta(3 * chance, 3 * (1 - chance), images)) / runs
    return found if like is None else np.where(rng.random(images) < 0.5, like, found)


@pytest.mark.parametrize(
    ("images", "runs", "chances"), [(300, 20, (0.6, 0.7)), (300, 1, (0.6, 0.62)), (2000, 5, (0.9, 0.8))]
)
def test_the_interval_is_that_of_a_paired_bootstrap(images: int, runs: int, chances: tuple[float, float]) -> None:
    reference = shares(1, images, chances[0], runs)
    right = shares(2, images, chances[1], runs, reference)
    rng = np.random.default_rng(3)
    resampled = []
    for _ in range(4000):
        chosen = rng.integers(0, images, images)
        resampled.append(100 * (np.mean(right[chosen]) - np.mean(reference[chosen])))
    low, high = np.percentile(resampled, [2.5, 97.5])
    found = difference(right, reference)
    assert found.points == pytest.approx(100 * (right.mean() - reference.mean()), abs=1e-4)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.08 * (high - low))


def test_it_holds_the_true_difference_in_about_95_of_100_samples() -> None:
    """Of few images as well, where a resampled interval is too narrow."""
    rng, true = np.random.default_rng(0), 10.0
    for images in (10, 40):
        held = 0
        for _ in range(2000):
            apart = rng.choice([1.0, 0.0, -1.0], images, p=[0.2, 0.7, 0.1])
            found = difference(apart, np.zeros(images))
            held += found.low <= true <= found.high
        assert 1880 <= held <= 1990, images


@pytest.mark.parametrize("images", [1, 2])
def test_one_or_two_images_prove_nothing(images: int) -> None:
    found = difference(np.ones(images), np.zeros(images))
    assert found.points == 100 and found.high == 100 and found.is_noise


def test_the_same_answers_are_noise_and_a_clear_gain_is_none() -> None:
    right = shares(1, 200, 0.6, 5)
    assert difference(right, right).points == 0 and difference(right, right).is_noise
    better, worse = difference(np.ones(200), right), difference(right, np.ones(200))
    assert not better.is_noise and not worse.is_noise
    assert (better.low, better.high) == (-worse.high, -worse.low)
    assert differences({"clip": right}, "wca") == {}
    assert list(differences({"clip": right, "wca": right}, "wca")) == ["clip"]


def test_both_tables_have_the_differences_and_mark_those_beyond_noise() -> None:
    make_inputs(classes=20)
    result = write_report("birds", "vit", 0, "photos")
    assert set(result.differences) == {"clip", "bifta"}
    own = {"clip": Difference(points=-3.25, low=-5.5, high=-1.0), "bifta": Difference(points=1.5, low=-0.5, high=3.5)}
    result.differences.clear()  # type: ignore[attr-defined]
    result.differences.update(own)  # type: ignore[attr-defined]
    rows = table_rows(markdown(result))
    assert [rows[name][1] for name in ("method", "clip", "wca", "bifta")] == [
        "difference to wca", "-3.25 [-5.50, -1.00]†", "-", "+1.50 [-0.50, +3.50]",
    ]  # fmt: skip
    text = plain(result)
    assert "-3.2 [-5.5, -1.0]†" in text and "+1.5 [-0.5, +3.5] " in text
    assert max(map(len, text.splitlines())) <= 100


def test_without_the_reference_one_remark_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    make_inputs()
    result = write_report("birds", "vit", 0, "photos", reference="cupl")
    for text in (plain(result), (paths.report("birds", "vit") / "table.md").read_text(encoding="utf-8")):
        assert text.count("No differences: cupl (report.reference) was not scored.") == 1
        assert "difference to cupl" not in text and "[" not in text
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["report"]["reference"] = "wcaa"
    Path("params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.setattr("sys.argv", ["report", "--dataset", "birds", "--model", "vit"])
    with pytest.raises(UserError, match=r"report.reference 'wcaa' is no method .*wca"):
        main()
