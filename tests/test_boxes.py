"""crop: squares within the image, the IoU filter against exact arithmetic, independence of order."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from stages.common.artifacts import BOXES, BoxesParameters
from stages.common.boxes import iou
from stages.common.params import Crop
from stages.common.tables import make_meta, read_table, write_table
from stages.crop.boxes import draw_candidates, surviving
from stages.crop.dataset import boxes_table

Box = tuple[int, int, int, int]

scales = st.floats(0.01, 1.0).flatmap(lambda low: st.tuples(st.just(low), st.floats(low, 1.0)))
sizes = st.one_of(st.integers(1, 6), st.integers(1, 6000))


def make_crop(
    candidates: int = 30,
    scale: tuple[float, float] = (0.5, 0.9),
    max_views: int = 10,
    thresholds: Sequence[float] = (0.6, 0.8),
    layout: Literal["random", "grid"] = "random",
) -> Crop:
    return Crop(
        layout=layout,
        candidates=candidates,
        min_scale=scale[0],
        max_scale=scale[1],
        max_views=max_views,
        iou_thresholds=list(thresholds),
    )


def overlap(a: Box, b: Box) -> Fraction:
    """Intersection over union of two boxes, exactly."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    return Fraction(width * height, area_a + area_b - width * height)


def survivors(boxes: Sequence[Box], threshold: float, max_views: int) -> list[int]:
    """The greedy filter of BiFTA, one candidate after the other; the threshold as it is written in params.yaml."""
    limit = Fraction(str(threshold))
    kept: list[int] = []
    for index, box in enumerate(boxes):
        if len(kept) < max_views and all(overlap(box, boxes[other]) <= limit for other in kept):
            kept.append(index)
    return kept


@settings(max_examples=150, deadline=None)
@given(
    width=sizes,
    height=sizes,
    scale=scales,
    seed=st.integers(0, 2**31),
    image_id=st.text(max_size=12),
    layout=st.sampled_from(["random", "grid"]),
)
@example(width=1, height=1, scale=(0.5, 0.9), seed=0, image_id="a", layout="random")
@example(width=9000, height=1, scale=(0.01, 1.0), seed=0, image_id="wide.jpg", layout="grid")
@example(width=3, height=20000, scale=(1.0, 1.0), seed=7, image_id="tall.jpg", layout="random")
def test_boxes_are_squares_of_the_stated_sizes_within_the_image(
    width: int, height: int, scale: tuple[float, float], seed: int, image_id: str, layout: Literal["random", "grid"]
) -> None:
    boxes = draw_candidates(width, height, make_crop(scale=scale, layout=layout), seed, image_id)
    assert boxes.shape == (30, 4)
    assert boxes.dtype == np.int32
    left, top, right, bottom = boxes.T.astype(np.int64)
    side, short = right - left, min(width, height)
    assert (side == bottom - top).all()
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= width).all()
    assert (bottom <= height).all()
    assert (side >= max(1, int(scale[0] * short))).all()
    assert (side <= max(1, scale[1] * short)).all()


def test_scales_and_corners_fill_their_ranges() -> None:
    boxes = draw_candidates(400, 200, make_crop(candidates=4000), 0, "a.jpg").astype(int)
    side = boxes[:, 2] - boxes[:, 0]
    assert side.min() in (100, 101)
    assert side.max() in (178, 179)
    assert abs(side.mean() - 139.5) < 1.5, "uniform over the scales, rounded down"
    for corner, length in ((boxes[:, 0], 400), (boxes[:, 1], 200)):
        place = corner / (length - side)
        assert place.min() < 0.005
        assert place.max() > 0.995
        assert abs(place.mean() - 0.5) < 0.02
    assert (boxes[:, 2] == 400).any(), "right is exclusive: a box may touch the edge"


def test_a_grid_is_evenly_spaced_and_its_order_is_the_image_s_own() -> None:
    crop = make_crop(candidates=300, layout="grid")
    boxes = draw_candidates(400, 200, crop, 0, "a.jpg")
    assert len({tuple(box) for box in boxes.tolist()}) == 300
    assert sorted(set(boxes[:, 2] - boxes[:, 0])) == [100, 140, 180]
    largest = boxes[boxes[:, 2] - boxes[:, 0] == 180]
    assert sorted(set(largest[:, 0])) == [round(place * 220 / 9) for place in range(10)]
    assert sorted(set(largest[:, 1])) == [round(place * 20 / 9) for place in range(10)]
    other = draw_candidates(400, 200, crop, 0, "b.jpg")
    assert not np.array_equal(boxes, other)
    assert sorted(map(tuple, boxes.tolist())) == sorted(map(tuple, other.tolist()))


lattice = st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(1, 10)).map(
    lambda t: (t[0], t[1], t[0] + t[2], t[1] + t[2])
)


@settings(max_examples=200, deadline=None)
@given(
    boxes=st.lists(lattice, min_size=1, max_size=25),
    thresholds=st.lists(
        st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 0.9, 1.0]), min_size=1, max_size=4
    ),
    max_views=st.integers(1, 12),
)
@example(boxes=[(0, 0, 2, 2), (0, 0, 1, 2), (5, 5, 6, 6)], thresholds=[0.5], max_views=9)
@example(boxes=[(0, 0, 10, 10), (0, 0, 10, 6), (0, 0, 10, 7)], thresholds=[0.6], max_views=9)
def test_the_filter_equals_greedy_selection_in_exact_arithmetic(
    boxes: list[Box], thresholds: list[float], max_views: int
) -> None:
    kept = surviving(np.array(boxes, dtype=np.int32), thresholds, max_views)
    assert kept.shape == (len(boxes), len(thresholds))
    for column, threshold in enumerate(thresholds):
        assert np.flatnonzero(kept[:, column]).tolist() == survivors(boxes, threshold, max_views)


def test_an_overlap_equal_to_the_threshold_survives() -> None:
    for threshold in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        share = round(threshold * 10)
        boxes = [(0, 0, 10, 10), (0, 0, 10, share)]
        assert overlap(boxes[0], boxes[1]) == Fraction(str(threshold))
        assert surviving(np.array(boxes, dtype=np.int32), [threshold], 9)[:, 0].tolist() == [True, True]
        assert surviving(np.array(boxes, dtype=np.int32), [threshold - 0.01], 9)[:, 0].tolist() == [True, False]


@settings(max_examples=15, deadline=None)
@given(width=st.integers(20, 9000), height=st.integers(20, 9000), image_id=st.text(min_size=1, max_size=8))
def test_drawn_boxes_are_filtered_as_in_exact_arithmetic(width: int, height: int, image_id: str) -> None:
    crop = make_crop(candidates=80, max_views=20, thresholds=(0.5, 0.7, 0.9))
    boxes = draw_candidates(width, height, crop, 0, image_id)
    kept = surviving(boxes, crop.iou_thresholds, crop.max_views)
    corners: list[Box] = [(int(a), int(b), int(c), int(d)) for a, b, c, d in boxes]
    assert kept[0].all(), "the first candidate always survives"
    for column, threshold in enumerate(crop.iou_thresholds):
        assert np.flatnonzero(kept[:, column]).tolist() == survivors(corners, threshold, crop.max_views)


def test_the_table_says_of_each_candidate_under_which_thresholds_it_survives() -> None:
    crop = make_crop(candidates=40, max_views=6)
    images = [{"image_id": "a/1.jpg", "width": 90, "height": 60}, {"image_id": "a/2.jpg", "width": 1, "height": 1}]
    table, counts = boxes_table(images, crop, seed=3)
    rows = table.to_pylist()
    assert table.schema == BOXES.columns
    assert [row["image_id"] for row in rows] == ["a/1.jpg"] * 40 + ["a/2.jpg"] * 40
    assert [row["candidate"] for row in rows] == [*range(40), *range(40)]
    thresholds = [float(np.float32(value)) for value in crop.iou_thresholds]
    total = [0, 0]
    for start in (0, 40):
        corners: list[Box] = [(r["left"], r["top"], r["right"], r["bottom"]) for r in rows[start : start + 40]]
        for column, threshold in enumerate(crop.iou_thresholds):
            expected = survivors(corners, threshold, crop.max_views)
            found = [i for i, row in enumerate(rows[start : start + 40]) if thresholds[column] in row["kept"]]
            assert found == expected
            total[column] += len(expected)
    assert counts.tolist() == total
    assert {tuple(row["kept"]) for row in rows[41:]} == {()}, "of equal boxes only the first survives"


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(6)), count=st.integers(1, 6))
def test_boxes_of_an_image_do_not_depend_on_other_images_or_their_order(order: list[int], count: int) -> None:
    crop = make_crop(candidates=12, max_views=5)
    images = [{"image_id": f"{i}.jpg", "width": 40 + 9 * i, "height": 70 - 5 * i} for i in range(6)]
    chosen = [images[i] for i in order[:count]]
    together = boxes_table(chosen, crop, seed=1)[0].to_pylist()
    for place, image in enumerate(chosen):
        assert together[12 * place : 12 * (place + 1)] == boxes_table([image], crop, seed=1)[0].to_pylist()


def test_boxes_depend_on_seed_and_name() -> None:
    crop = make_crop()
    drawn = draw_candidates(300, 300, crop, 0, "a.jpg")
    assert (drawn == draw_candidates(300, 300, crop, 0, "a.jpg")).all()
    assert (drawn != draw_candidates(300, 300, crop, 1, "a.jpg")).any()
    assert (drawn != draw_candidates(300, 300, crop, 0, "b.jpg")).any()


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    crop = make_crop()
    images = [{"image_id": f"{i}.jpg", "width": 50 + i, "height": 60} for i in range(20)]
    meta = make_meta(BOXES, "toy", BoxesParameters(seed=0, **crop.model_dump()))
    for name in ("one", "two"):
        write_table(tmp_path / name, boxes_table(images, crop, seed=0)[0], meta)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    table, read = read_table(tmp_path / "one", BOXES)
    assert read == meta
    assert len(table) == 20 * crop.candidates
    assert isinstance(table, pa.Table)


@pytest.mark.parametrize("thresholds", [(0.8, 0.6), (0.5, 0.5), ()])
def test_thresholds_are_ascending_and_distinct(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="iou_thresholds"):
        make_crop(thresholds=thresholds)


CORNERS = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 60), st.integers(1, 60))


@given(st.lists(CORNERS, min_size=1, max_size=8), st.lists(CORNERS, min_size=1, max_size=8))
def test_the_overlap_is_torchvisions_to_the_last_bit(
    boxes: list[tuple[int, ...]], others: list[tuple[int, ...]]
) -> None:
    def placed(corners: list[tuple[int, ...]]) -> np.ndarray:
        return np.array([(left, top, left + width, top + height) for left, top, width, height in corners], np.int32)

    mine, theirs = placed(boxes), placed(others)
    expected = box_iou(*(torch.from_numpy(rows.astype(np.float64)) for rows in (mine, theirs))).numpy()
    assert (iou(mine, theirs) == expected).all()
