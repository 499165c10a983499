"""embed: resampling and encoding as on a GPU, computed on the CPU, against the CPU's own way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, make_tiny_model
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.common.encoders import Encoder, load_encoder
from stages.common.images import content_digest
from stages.common.params import Params
from stages.embed.encode import Embedded, embed_in_batches, embed_in_threads, read_image
from stages.embed.resample import CROPS_AT_ONCE, axis_weights, resample_together
from stages.embed.shards import ImageViews
from stages.embed.views import ViewMaker, resample, to_tensor

INTERPOLATIONS = ("bicubic", "bilinear")


def picture(width: int, height: int, seed: int) -> Image.Image:
    """Smooth colours with grain, so that a wrong filter or a shift by a pixel shows."""
    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8)).resize((width, height))
    grain = rng.integers(-40, 40, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(smooth).astype(int) + grain, 0, 255).astype(np.uint8))


def random_boxes(width: int, height: int, count: int, seed: int) -> np.ndarray:
    """Boxes of any shape within the image, among them the whole image and single pixels in its corners."""
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.integers(0, width, (count, 2))), np.sort(rng.integers(0, height, (count, 2)))
    drawn = np.stack([x[:, 0], y[:, 0], x[:, 1] + 1, y[:, 1] + 1], axis=1)
    corners = [[0, 0, width, height], [0, 0, 1, 1], [width - 1, height - 1, width, height]]
    return np.concatenate([corners, drawn]).astype(np.int32)


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 160),
    height=st.integers(1, 160),
    size=st.sampled_from((16, 33, 64)),
    count=st.integers(0, 8),
    seed=st.integers(0, 99),
    interpolation=st.sampled_from(INTERPOLATIONS),
)
@example(width=40, height=30, size=24, count=2 * CROPS_AT_ONCE + 5, seed=0, interpolation="bicubic")
@example(width=700, height=500, size=64, count=6, seed=1, interpolation="bicubic")
@example(width=700, height=500, size=64, count=6, seed=2, interpolation="bilinear")
@example(width=9, height=7, size=224, count=4, seed=3, interpolation="bicubic")
@example(width=1, height=1, size=16, count=0, seed=4, interpolation="bilinear")
def test_all_crops_at_once_are_the_crops_one_by_one(
    width: int, height: int, size: int, count: int, seed: int, interpolation: str
) -> None:
    pixels = to_tensor(picture(width, height, seed))
    boxes = random_boxes(width, height, count, seed)
    together = resample_together(pixels.contiguous(), boxes, size, interpolation)
    assert together.shape == (len(boxes), 3, size, size)
    assert together.dtype == torch.uint8
    difference = (together.int() - resample(pixels, boxes, size, interpolation).int()).abs()
    assert difference.max() <= 2
    assert difference.float().mean() < 0.05


def test_no_crops_are_no_views() -> None:
    none = np.zeros((0, 4), np.int32)
    assert resample_together(torch.zeros(3, 5, 5, dtype=torch.uint8), none, 8, "bicubic").shape == (0, 3, 8, 8)


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 300),
    size=st.integers(1, 64),
    corners=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5),
    interpolation=st.sampled_from(INTERPOLATIONS),
)
def test_weights_sum_to_one_and_look_at_the_crop_alone(
    length: int, size: int, corners: Sequence[tuple[float, float]], interpolation: str
) -> None:
    starts = torch.tensor([int(place * (length - 1)) for place, _ in corners])
    sides = torch.tensor([1 + int(p * (length - int(s) - 1)) for (_, p), s in zip(corners, starts, strict=True)])
    weights = axis_weights(starts, sides, length, size, interpolation)
    assert weights.shape == (len(corners), size, length)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(len(corners), size), atol=1e-5, rtol=0)
    pixel = torch.arange(length)
    outside = (pixel < starts[:, None]) | (pixel >= (starts + sides)[:, None])
    assert (weights.transpose(1, 2)[outside] == 0).all()


COUNTS = (0, 1, 12, 3, 30, 7, 0, 5, 64, 2)
"""Crops of each image."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and images."""
    made = tmp_path_factory.mktemp("images")
    make_tiny_model(made / "model")
    for number in range(len(COUNTS)):
        picture(60 + 9 * number, 100 - 4 * number, number).save(made / f"{number}.png")
    return made


def encoder_of(folder: Path, precision: str) -> Encoder:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    model = {"name": f"local-dir:{folder / 'model'}"}
    raw |= {"device": "cpu", "precision": precision, "models": {"m": model}}
    return load_encoder("m", Params.model_validate(raw))


def views_of(folder: Path, numbers: Sequence[int]) -> list[ImageViews]:
    found = []
    for number in numbers:
        path = folder / f"{number}.png"
        with Image.open(path) as image:
            boxes = random_boxes(*image.size, 100, number)[3 : 3 + COUNTS[number]]
        content = content_digest(path.read_bytes())
        found.append(ImageViews(path.name, content, "", np.arange(len(boxes), dtype=np.int32), boxes))
    return found


def embed(way: str, folder: Path, encoder: Encoder, numbers: Sequence[int], size: int) -> list[Embedded]:
    function = {"threads": embed_in_threads, "batches": embed_in_batches}[way]
    make_views = ViewMaker(encoder.meta.preprocess, encoder.image_size)
    return list(function(views_of(folder, numbers), partial(read_image, str(folder)), encoder, make_views, size))


@pytest.mark.parametrize("size", [1, 7, 16, 200])
def test_batches_across_images_give_the_embeddings_of_each(folder: Path, size: int) -> None:
    encoder = encoder_of(folder, "float32")
    numbers = range(len(COUNTS))
    by_image, in_batches = (embed(way, folder, encoder, numbers, size) for way in ("threads", "batches"))
    assert [len(one.embeddings) for one in in_batches] == [1 + count for count in COUNTS]
    for one, other in zip(in_batches, by_image, strict=True):
        assert one.embeddings.dtype == torch.float16
        assert one.similarity.dtype == torch.float32
        assert one.embeddings.shape == other.embeddings.shape
        cosine = torch.nn.functional.cosine_similarity(one.embeddings.double(), other.embeddings.double())
        assert cosine.min() >= 0.9999
        torch.testing.assert_close(one.similarity, other.similarity, atol=2e-3, rtol=0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_row_of_a_batch_does_not_depend_on_what_comes_before(folder: Path, precision: str) -> None:
    encoder = encoder_of(folder, precision)
    alone = {number: embed("batches", folder, encoder, [number], 16)[0] for number in range(len(COUNTS))}
    for numbers in ([*range(len(COUNTS))], [*range(len(COUNTS))][::-1], [4, 0, 8, 2], [1, 8]):
        for number, found in zip(numbers, embed("batches", folder, encoder, numbers, 16), strict=True):
            assert torch.equal(found.embeddings, alone[number].embeddings)
            assert torch.equal(found.similarity, alone[number].similarity)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_number_of_threads_changes_no_bit(folder: Path, precision: str) -> None:
    encoder = encoder_of(folder, precision)
    before = torch.get_num_threads()
    found = {}
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found[threads] = embed("threads", folder, encoder, [*range(len(COUNTS))] * 3, 16)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for threads in (2, 4):
        for one, other in zip(found[1], found[threads], strict=True):
            assert torch.equal(one.embeddings, other.embeddings)
            assert torch.equal(one.similarity, other.similarity)
