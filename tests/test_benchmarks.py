"""The benchmarks' baseline does what ours does, only slower: otherwise a ratio would mean nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from conftest import make_image
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import baseline, common
from benchmarks.view_preparation import ours
from stages.common.params import load_params
from stages.crop.boxes import draw_candidates, surviving
from stages.embed.views import ViewMaker

CROP = load_params().crop.model_copy(update={"candidates": 60, "max_views": 20})


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    name=st.text("abc", max_size=3),
    threshold=st.sampled_from([0.0, 0.5, 0.8, 1.0]),
)
def test_the_baseline_keeps_the_crops_that_we_keep(width: int, height: int, name: str, threshold: float) -> None:
    boxes = draw_candidates(width, height, CROP, 0, name)
    expected = np.flatnonzero(surviving(boxes, [threshold], CROP.max_views)[:, 0])
    assert baseline.keep(boxes, threshold, CROP.max_views) == expected.tolist()


def test_the_baselines_views_are_ours(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    make_image(path, 150, 110, seed=1)
    config = open_clip.transform.PreprocessCfg(size=64)
    transform = open_clip.transform.image_transform_v2(config, is_train=False)
    preprocess = {key: getattr(config, key) for key in ("mean", "std", "interpolation", "resize_mode")}
    crop = CROP.model_copy(update={"max_views": 60})
    queue, kept = baseline.prepare(path, path.name, transform, crop, 0, 0.8)
    views = ours(path, path.name, ViewMaker(preprocess, 64), crop, 0)
    assert len(views) == 1 + kept < len(queue) == 61, "the rest is padding"
    assert (queue[1 + kept :] == 0).all()
    mean, std = (torch.tensor(values)[:, None, None] for values in (config.mean, config.std))
    difference = (queue[: 1 + kept] - (views.float() / 255 - mean) / std).abs() * std * 255
    assert difference.mean() < 0.5, "grey levels"


def test_figures_are_merged_into_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results.json")
    common.record("one", {"one_ratio": 2.0}, {"runs": 3})
    common.record("other", {"other_ratio": 4.0}, {})
    common.record("one", {"one_ratio": 3.0}, {"runs": 5})
    found = json.loads((tmp_path / "results.json").read_text())
    assert (found["one_ratio"], found["other_ratio"]) == (3.0, 4.0)
    part = found["benchmarks"]["one"]
    assert part["details"] == {"runs": 5}
    assert part["command"] == "python -m benchmarks.one"
    assert part["machine"]["cores"] > 0
    assert "torch" in part["versions"]


def test_a_ratio_is_the_median_over_turns() -> None:
    assert common.ratio([4.0, 9.0, 100.0], [2.0, 3.0, 1.0]) == 3.0
