"""embed: pixels of views, rows of shards, and runs that are killed, repeated or changed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from artifact_files import ENCODER, boxes_parameters, read_raw
from conftest import Project, make_image, make_project
from embed_project import BOXES, CROP, EMBED, IMAGES, INGEST, VIEWS, embedded_project, in_folder, shards, written
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from stages.common import artifacts
from stages.common.columns import embedding_rows
from stages.common.crops import open_boxes, read_images
from stages.common.encoders import load_encoder
from stages.common.images import open_rgb
from stages.common.params import load_params
from stages.common.tables import make_meta, read_table
from stages.embed.encode import batches
from stages.embed.shards import plan_shards
from stages.embed.views import ViewMaker

PREPROCESS: dict[str, Any] = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with grain, so that a wrong filter or a shift by a pixel shows."""
    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8)).resize((width, height))
    grain = rng.integers(-40, 40, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(smooth).astype(int) + grain, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_crops_are_resampled_as_pillow_does(interpolation: str) -> None:
    image = picture(300, 220)
    boxes = np.array(
        [[0, 0, 220, 220], [80, 0, 300, 220], [13, 27, 130, 144], [50, 60, 82, 92], [9, 9, 29, 29], [5, 6, 6, 7]]
    )
    found = ViewMaker({**PREPROCESS, "interpolation": interpolation}, 64)(image, boxes)
    assert found.shape == (7, 3, 64, 64)
    assert found.dtype == torch.uint8
    resampling = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[interpolation]
    for view, box in zip(found[1:], boxes, strict=True):
        left, top, right, bottom = (int(edge) for edge in box)
        crop = image.crop((left, top, right, bottom)).resize((64, 64), resampling)
        difference = np.abs(view.permute(1, 2, 0).numpy().astype(int) - np.asarray(crop).astype(int))
        assert difference.mean() < 1.0


@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
@pytest.mark.parametrize("size", [(300, 200), (200, 300), (20, 31), (64, 64), (500, 40)])
def test_the_whole_image_is_open_clips_own_transform(resize_mode: str, size: tuple[int, int]) -> None:
    image = picture(*size)
    preprocess = {**PREPROCESS, "resize_mode": resize_mode}
    found = ViewMaker(preprocess, 64)(image, np.zeros((0, 4), dtype=np.int32))
    assert found.shape == (1, 3, 64, 64)
    expected = image_transform_v2(PreprocessCfg(size=64, **preprocess), is_train=False)(image)
    mean, std = (torch.tensor(PREPROCESS[name])[:, None, None] for name in ("mean", "std"))
    torch.testing.assert_close((found[0].float() / 255 - mean) / std, expected, atol=1e-5, rtol=0)


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(1, 9), max_size=12), size=st.integers(1, 7))
def test_batches_are_full_and_keep_every_view_in_order(counts: list[int], size: int) -> None:
    numbers = torch.arange(1, sum(counts) + 1)
    found = list(batches(numbers.split(counts), size))
    assert all(len(batch) == size for batch, _ in found)
    assert all(real == size for _, real in found[:-1])
    assert torch.cat([numbers[:0], *(batch[:real] for batch, real in found)]).tolist() == numbers.tolist()
    assert all((batch[real:] == 0).all() for batch, real in found)


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of nine images in shards of four, embedded in float32. Not to be changed."""
    return embedded_project(tmp_path_factory.mktemp("embed") / "project", "float32")


@pytest.fixture
def copied(computed: Project, tmp_path: Path) -> Project:
    """A copy of it that may be changed."""
    shutil.copytree(computed.folder, tmp_path / "copy")
    return Project(tmp_path / "copy")


def test_each_image_has_its_whole_view_first_and_every_wanted_crop_once(computed: Project) -> None:
    views = pl.concat([pl.read_parquet(path) for path in shards(computed)])
    boxes = pl.read_parquet(computed.folder / BOXES)
    images = pl.read_parquet(computed.folder / IMAGES)["image_id"].to_list()
    assert views["image_id"].unique(maintain_order=True).to_list() == images
    wanted = boxes.filter((pl.col("candidate") < 10) | (pl.col("kept").list.len() > 0))
    assert wanted.filter(pl.col("candidate") >= 10).height > 0, "some survivors lie beyond the unfiltered pool"
    assert wanted.filter((pl.col("candidate") < 10) & (pl.col("kept").list.len() == 0)).height > 0
    for image_id in images:
        rows = views.filter(pl.col("image_id") == image_id)
        expected = wanted.filter(pl.col("image_id") == image_id)["candidate"].to_list()
        assert rows["candidate"].to_list() == [-1, *expected]
        assert rows["similarity"][0] == pytest.approx(1.0, abs=1e-6)


def test_a_row_is_the_embedding_of_its_own_crop(computed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(computed.folder)
    encoder = load_encoder("tiny", load_params())
    boxes = pl.read_parquet(BOXES)
    for path in shards(computed):
        schema = pq.read_schema(path)
        assert str(schema.field("embedding").type.value_type) == "halffloat"
        assert schema.field("embedding").type.list_size == 16
        assert [str(schema.field(n).type) for n in ("candidate", "similarity")] == ["int32", "float"]
        table, _ = read_table(path, artifacts.VIEWS)
        embeddings = embedding_rows(table["embedding"]).astype(np.float64)
        assert np.abs(np.linalg.norm(embeddings, axis=1) - 1).max() < 2e-3
        for image_id in dict.fromkeys(table["image_id"].to_pylist()):
            place = [row for row, other in enumerate(table["image_id"].to_pylist()) if other == image_id]
            candidates = table["candidate"].take(place).to_pylist()
            image = open_rgb(Path("toy-images") / image_id)
            own = boxes.filter(pl.col("image_id") == image_id)
            corners = own.select("left", "top", "right", "bottom").to_numpy()[candidates[1:]]
            pixels = ViewMaker(encoder.meta.preprocess, encoder.image_size)(image, corners)
            expected = encoder.encode_images(pixels).double().numpy()
            assert embeddings[place] == pytest.approx(expected, abs=1e-3)
            similarity = table["similarity"].take(place).to_numpy()
            assert similarity == pytest.approx(expected @ expected[0], abs=1e-5), "before rounding to float16"


def test_metadata_tells_what_made_a_shard(computed: Project) -> None:
    for index, path in enumerate(shards(computed)):
        _, meta = read_raw(path)
        assert path.name == f"part-{index:05d}.parquet"
        assert (meta["shard"]["index"], meta["shard"]["images"]) == (index, [4, 4, 1][index])
        assert meta["parameters"]["crop"] == read_raw(computed.folder / BOXES)[1]["parameters"]
        assert meta["model"]["precision"] == "float32"
        assert meta["model"]["name"] == "local-dir:tiny-model"


def test_a_second_run_keeps_every_shard(copied: Project) -> None:
    before = written(copied)
    in_folder(copied.folder, INGEST, CROP, EMBED)
    assert written(copied) == before


@pytest.mark.parametrize("per_shard", [2, 5])
def test_shards_need_not_divide_the_row_groups_of_boxes(
    copied: Project, computed: Project, per_shard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.crop.dataset.IMAGES_PER_ROW_GROUP", 3)
    copied.edit(lambda params: params["embed"].update(images_per_shard=per_shard))
    in_folder(copied.folder, CROP, EMBED)
    assert pq.ParquetFile(copied.folder / BOXES).metadata.num_row_groups == 3
    assert len(shards(copied)) == -(-9 // per_shard)
    assert pl.read_parquet(copied.folder / BOXES).equals(pl.read_parquet(computed.folder / BOXES))
    rows, expected = (pl.concat([pl.read_parquet(path) for path in shards(p)]) for p in (copied, computed))
    assert rows.select("image_id", "candidate").equals(expected.select("image_id", "candidate"))
    difference = rows["embedding"].to_numpy().astype(float) - expected["embedding"].to_numpy().astype(float)
    assert np.abs(difference).max() < 2e-3


def test_many_images_line_up_with_their_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More images than boxes.parquet has in a row group, in shards that cut across."""
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path)
    source = make_project(tmp_path / "source")
    shutil.copy(source.folder / "params.yaml", tmp_path)
    project.edit(lambda params: params["crop"].update(candidates=5, max_views=3))
    for number in range(300):
        path = tmp_path / "toy-images" / f"class {number % 2}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + number % 5, 9 + number % 3), (number % 256, 0, 0)).save(path)
    in_folder(tmp_path, INGEST, CROP)
    assert pq.ParquetFile(BOXES).metadata.num_row_groups == 2
    meta = make_meta(artifacts.VIEWS, "toy", artifacts.ViewsParameters(crop=boxes_parameters()), ENCODER)
    planned = list(plan_shards(open_boxes("toy"), read_images("toy"), VIEWS, 100, meta))
    assert [len(shard.images) for shard in planned] == [100, 100, 100]
    images = [image for shard in planned for image in shard.images]
    assert [image.image_id for image in images] == pl.read_parquet(IMAGES)["image_id"].to_list()
    boxes = pl.read_parquet(BOXES).partition_by("image_id", maintain_order=True)
    for image, own in zip(images, boxes, strict=True):
        assert own["image_id"][0] == image.image_id
        wanted = own.filter((pl.col("candidate") < 3) | (pl.col("kept").list.len() > 0))
        assert image.candidates.tolist() == wanted["candidate"].to_list()
        assert image.boxes.tolist() == [list(row) for row in wanted.select("left", "top", "right", "bottom").rows()]


def test_a_replaced_image_is_embedded_again_and_its_shard_alone(copied: Project) -> None:
    before = written(copied)
    content = {path.name: path.read_bytes() for path in shards(copied)}
    image = copied.folder / "toy-images" / pl.read_parquet(copied.folder / IMAGES)["image_id"][5]
    with Image.open(image) as old:
        width, height = old.size
    make_image(image, width, height, seed=99)
    in_folder(copied.folder, INGEST, CROP, EMBED)
    after = written(copied)
    assert [name for name in after if after[name] != before[name]] == ["part-00001.parquet"]
    assert shards(copied)[1].read_bytes() != content["part-00001.parquet"]


def test_a_removed_image_removes_the_superfluous_shard(copied: Project) -> None:
    before = written(copied)
    last = pl.read_parquet(copied.folder / IMAGES)["image_id"][-1]
    (copied.folder / "toy-images" / last).unlink()
    in_folder(copied.folder, INGEST, CROP, EMBED)
    assert written(copied) == {name: before[name] for name in ("part-00000.parquet", "part-00001.parquet")}


@pytest.mark.parametrize(
    "change",
    [
        lambda params: params["crop"].update(max_scale=0.8),
        lambda params: params.update(seed=1),
        lambda params: params.update(precision="bfloat16"),
        lambda params: params["models"]["tiny"].update(preprocess={"resize_mode": "squash"}),
    ],
    ids=["scale", "seed", "precision", "preprocess"],
)
def test_other_parameters_make_every_shard_again(copied: Project, change: Callable[[dict[str, Any]], None]) -> None:
    before = written(copied)
    copied.edit(change)
    in_folder(copied.folder, CROP, EMBED)
    after = written(copied)
    assert set(after) == set(before)
    assert all(after[name] != before[name] for name in before)


def test_a_broken_shard_and_what_a_killed_run_left_are_mended(copied: Project, computed: Project) -> None:
    broken = shards(copied)[1]
    broken.write_bytes(broken.read_bytes()[:500])
    (broken.parent / ".part-00002.parquet.tmp").write_bytes(b"half")
    in_folder(copied.folder, EMBED)
    assert [path.name for path in shards(copied)] == [path.name for path in shards(computed)]
    assert [path.read_bytes() for path in shards(copied)] == [path.read_bytes() for path in shards(computed)]


def test_a_killed_run_goes_on_after_its_last_whole_shard(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    project.edit(lambda params: params["embed"].update(images_per_shard=1))
    for number in range(12):  # large enough for a shard to take longer than a look at the folder
        make_image(project.folder / "toy-images" / "blue tavo" / f"large {number}.jpg", 1000, 800, number)
    in_folder(project.folder, INGEST, CROP)
    folder = project.folder / VIEWS
    command = [sys.executable, "-m", "stages.embed", "--dataset", "toy", "--model", "tiny"]
    process = subprocess.Popen(command, cwd=project.folder, env=project.environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any(folder.glob("part-*.parquet")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"
    finished = {name: when for name, when in written(project).items() if name.startswith("part-")}
    assert 0 < len(finished) < 21
    in_folder(project.folder, EMBED)
    after = written(project)
    assert {name: after[name] for name in finished} == finished, "whole shards are not written again"
    assert list(after) == [f"part-{index:05d}.parquet" for index in range(21)], "and no temporary file stays"
    resumed = {path.name: path.read_bytes() for path in shards(project)}
    shutil.rmtree(folder)
    in_folder(project.folder, EMBED)
    assert {path.name: path.read_bytes() for path in shards(project)} == resumed
