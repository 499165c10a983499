"""embed, never twice: what changed is embedded, everything else is taken from what is there."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from artifact_files import as_format_1, read_raw, without_digests, write_raw
from conftest import Project, make_image, make_project, make_tiny_model
from embed_project import (
    BOXES,
    CROP,
    EMBED,
    IMAGES,
    INGEST,
    VIEWS,
    content,
    embedded_project,
    encoded,
    fresh,
    in_folder,
    shards,
    wanted,
    written,
)
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.common import artifacts
from stages.common.paths import old_views
from stages.common.tables import read_meta
from stages.embed import dataset as stage
from stages.embed.encode import Embedded
from stages.embed.reuse import OldViews, Work
from stages.embed.shards import Rows, Shard

Change = Callable[[dict[str, Any]], None]
PRECISIONS = ("float32", "bfloat16")


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Project]:
    """An embedded project for each precision. Not to be changed."""
    folder = tmp_path_factory.mktemp("reuse")
    return {precision: embedded_project(folder / precision, precision) for precision in PRECISIONS}


@pytest.fixture(params=PRECISIONS)
def project(request: pytest.FixtureRequest, computed: dict[str, Project], tmp_path: Path) -> Project:
    """A copy of one that may be changed."""
    return copy_of(computed[request.param], tmp_path / "project")


@pytest.fixture
def rounded(computed: dict[str, Project], tmp_path: Path) -> Project:
    """A copy of that in bfloat16."""
    return copy_of(computed["bfloat16"], tmp_path / "project")


def copy_of(project: Project, folder: Path) -> Project:
    shutil.copytree(project.folder, folder)
    return Project(folder)


def precision_of(project: Project) -> str:
    found: str = read_meta(shards(project)[0], artifacts.VIEWS).encoder().precision
    return found


def add(project: Project, image_id: str, seed: int, size: tuple[int, int] = (70, 60)) -> None:
    make_image(project.folder / "toy-images" / image_id, *size, seed=seed)


def crop(**values: Any) -> Change:
    """Other parameters of the boxes; `score.iou_threshold` has to be one of theirs."""

    def change(params: dict[str, Any]) -> None:
        params["crop"].update(values)
        params["score"].update(iou_threshold=params["crop"]["iou_thresholds"][0])

    return change


def assert_close(mine: Project, theirs: Project) -> None:
    """The same shards of the same rows; embeddings to the rounding of their precision.

    Some crops of an image make a smaller forward pass than all of them, and the matrix products of another size may
    add in another order.
    """
    assert [path.name for path in shards(mine)] == [path.name for path in shards(theirs)]
    bound = 2**-11 if precision_of(mine) == "float32" else 2**-8
    for one, other in zip(shards(mine), shards(theirs), strict=True):
        assert read_meta(one, artifacts.VIEWS) == read_meta(other, artifacts.VIEWS)
        rows, expected = pl.read_parquet(one), pl.read_parquet(other)
        assert rows.select("image_id", "candidate").equals(expected.select("image_id", "candidate"))
        for column in ("embedding", "similarity"):
            difference = rows[column].to_numpy().astype(float) - expected[column].to_numpy().astype(float)
            assert np.abs(difference).max() <= bound


def change_images(project: Project, kind: str) -> None:
    """image_ids are sorted: "Grey_Heron/...", "blue tavo/...", "red-crowned tavo/..."."""
    root = project.folder / "toy-images"
    if kind == "front":
        add(project, "Grey_Heron/+.jpg", 50)
    elif kind == "middle":
        add(project, "blue tavo/1 and a half.jpg", 51)
    elif kind == "several":
        for number in range(7):
            add(project, f"blue tavo/{number % 3} {number}.jpg", 60 + number)
    elif kind == "removed":
        (root / "Grey_Heron/1.jpg").unlink()
    elif kind == "moved":
        (root / "Grey_Heron/0.jpg").rename(root / "red-crowned tavo/9.jpg")
    elif kind == "replaced":
        with Image.open(root / "blue tavo/1.jpg") as old:  # of the same size, so that its boxes stay
            size = old.size
        add(project, "blue tavo/1.jpg", 52, size)
    elif kind == "shrunk":
        shutil.rmtree(root / "red-crowned tavo")
    else:
        assert kind == "all at once"
        for one in ("front", "middle", "removed", "moved", "replaced"):
            change_images(project, one)


@pytest.mark.parametrize(
    ("kind", "new"),
    [
        ("front", ["Grey_Heron/+.jpg"]),
        ("middle", ["blue tavo/1 and a half.jpg"]),
        ("several", [f"blue tavo/{number % 3} {number}.jpg" for number in range(7)]),
        ("removed", []),
        # Its boxes are drawn by its name, so in another folder it is another image.
        ("moved", ["red-crowned tavo/9.jpg"]),
        ("replaced", ["blue tavo/1.jpg"]),
        ("shrunk", []),
        (
            "all at once",
            ["Grey_Heron/+.jpg", "blue tavo/1 and a half.jpg", "red-crowned tavo/9.jpg", "blue tavo/1.jpg"],
        ),
    ],
)
def test_only_new_images_are_encoded(project: Project, tmp_path: Path, kind: str, new: list[str]) -> None:
    change_images(project, kind)
    in_folder(project.folder, INGEST, CROP)
    with encoded() as passes:
        in_folder(project.folder, EMBED)
    views = wanted(project)
    assert sum(passes) == sum(len(views[image_id]) for image_id in new)
    assert content(project) == fresh(project, tmp_path / "fresh")


def test_what_left_and_came_back_is_as_it_was(project: Project, computed: dict[str, Project]) -> None:
    path = project.folder / "toy-images/blue tavo/0.jpg"
    there = path.read_bytes()
    path.unlink()
    in_folder(project.folder, INGEST, CROP, EMBED)
    path.write_bytes(there)
    in_folder(project.folder, INGEST, CROP)
    with encoded() as passes:
        in_folder(project.folder, EMBED)
    assert sum(passes) == len(wanted(project)["blue tavo/0.jpg"])
    assert content(project) == content(computed[precision_of(project)])


def test_copies_of_one_picture_are_images_of_their_own(project: Project, tmp_path: Path) -> None:
    root = project.folder / "toy-images"
    for name in ("a", "b"):
        shutil.copy(root / "Grey_Heron/2.jpg", root / f"Grey_Heron/2 {name}.jpg")
    in_folder(project.folder, INGEST, CROP, EMBED)
    assert content(project) == fresh(project, tmp_path / "fresh")


def test_a_further_threshold_embeds_its_crops_alone(project: Project, tmp_path: Path) -> None:
    before = wanted(project)
    project.edit(crop(iou_thresholds=[0.6, 0.7, 0.8, 0.9]))
    in_folder(project.folder, CROP)
    after = wanted(project)
    added = {image_id: after[image_id] - before[image_id] for image_id in after}
    assert sum(map(len, added.values())) > 0, "the threshold asks for crops that are not there"
    with encoded() as passes:
        in_folder(project.folder, EMBED)
    # With new crops the whole image goes along, for their similarity to it.
    assert sum(passes) == sum(1 + len(crops) for crops in added.values() if crops)
    fresh(project, tmp_path / "fresh")
    assert_close(project, Project(tmp_path / "fresh"))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(crop(iou_thresholds=[0.6]), id="fewer thresholds"),
        pytest.param(crop(max_views=8, iou_thresholds=[0.6]), id="fewer views"),
        pytest.param(lambda params: params["embed"].update(images_per_shard=1), id="shards of 1"),
        pytest.param(lambda params: params["embed"].update(images_per_shard=2), id="shards of 2"),
        pytest.param(lambda params: params["embed"].update(images_per_shard=5), id="shards of 5"),
        pytest.param(lambda params: params["embed"].update(images_per_shard=100), id="one shard"),
    ],
)
def test_what_is_there_is_only_laid_out_again(project: Project, tmp_path: Path, change: Change) -> None:
    before = content(project)
    project.edit(change)
    in_folder(project.folder, CROP)
    with encoded() as passes:
        in_folder(project.folder, EMBED)
    assert passes == []
    assert content(project) != before
    assert content(project) == fresh(project, tmp_path / "fresh")


def test_another_batch_size_changes_nothing(project: Project) -> None:
    before = written(project)
    for size in (5, "auto"):
        project.edit(lambda params, size=size: params["embed"].update(batch_size=size))  # type: ignore[misc]
        with encoded() as passes:
            in_folder(project.folder, CROP, EMBED)
        assert passes == []
    assert written(project) == before


def other_weights(project: Project) -> None:
    make_tiny_model(project.folder / "tiny-model", seed=7)


def edited(change: Change) -> Callable[[Project], None]:
    return lambda project: project.edit(change)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(other_weights, id="weights"),
        pytest.param(edited(lambda params: params.update(precision="float16")), id="precision"),
        pytest.param(edited(lambda params: params["crop"].update(max_scale=0.8)), id="scale"),
        pytest.param(edited(lambda params: params["crop"].update(layout="grid")), id="layout"),
        pytest.param(edited(lambda params: params.update(seed=1)), id="seed"),
        pytest.param(
            edited(lambda params: params["models"]["tiny"].update(preprocess={"resize_mode": "squash"})),
            id="preprocess",
        ),
    ],
)
def test_what_other_parameters_touch_is_encoded_again(
    project: Project, tmp_path: Path, change: Callable[[Project], None]
) -> None:
    change(project)
    in_folder(project.folder, CROP)
    with encoded() as passes:
        in_folder(project.folder, EMBED)
    assert sum(passes) == sum(map(len, wanted(project).values()))
    assert content(project) == fresh(project, tmp_path / "fresh")


STEPS = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(("Grey_Heron", "blue tavo")), st.integers(0, 6)),
    st.tuples(st.just("remove"), st.integers(0, 8), st.just(0)),
    st.tuples(st.just("per_shard"), st.integers(1, 6), st.just(0)),
    st.tuples(st.just("fewer"), st.sampled_from((0.6, 0.8)), st.integers(6, 9)),
    # The next run stops after this many shards.
    st.tuples(st.just("stop"), st.integers(0, 3), st.just(0)),
)
MORE = st.tuples(st.just("more"), st.sampled_from(((0.6,), (0.5, 0.7, 0.9), (0.8,))), st.sampled_from((4, 10, 14)))
"""Other crops, of which some may be new: equal to rounding, where the others are equal byte for byte."""


class Stopped(Exception):
    pass


def take(project: Project, kind: str, what: Any, number: int) -> int | None:
    """Take a step; returns after how many shards to stop."""
    root = project.folder / "toy-images"
    if kind == "add":
        add(project, f"{what}/{number} new.jpg", seed=100 + number)
    elif kind == "remove":
        found = sorted(root.rglob("*.jpg"))
        last_of_its_class = len(list(found[what % len(found)].parent.iterdir())) == 1
        if not last_of_its_class:
            found[what % len(found)].unlink()
    elif kind == "per_shard":
        project.edit(lambda params: params["embed"].update(images_per_shard=what))
    elif kind == "fewer":
        project.edit(crop(iou_thresholds=[what], max_views=number))
    elif kind == "more":
        project.edit(crop(iou_thresholds=list(what), max_views=number))
    return what if kind == "stop" else None


def go_through(project: Project, steps: list[tuple[str, Any, int]]) -> None:
    for kind, what, number in steps:
        stop = take(project, kind, what, number)
        if stop is None:
            in_folder(project.folder, INGEST, CROP, EMBED)
        else:
            take(project, "add", "blue tavo", 10 * stop)
            in_folder(project.folder, INGEST, CROP)
            with stopped_after(stop):
                run_or_stop(project)
    in_folder(project.folder, EMBED)
    fresh(project, project.folder.parent / "fresh")


thorough = settings(
    max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate]
)


@pytest.mark.parametrize("precision", PRECISIONS)
@thorough
@given(steps=st.lists(STEPS, min_size=2, max_size=5))
def test_whatever_happened_the_end_is_that_of_a_fresh_run(
    computed: dict[str, Project],
    tmp_path_factory: pytest.TempPathFactory,
    precision: str,
    steps: list[tuple[str, Any, int]],
) -> None:
    # Once fewer crops are there, asking for more would be asking for new ones.
    steps = sorted(steps, key=lambda step: step[0] == "fewer")[: len(steps) - sum(s[0] == "fewer" for s in steps) + 1]
    project = copy_of(computed[precision], tmp_path_factory.mktemp("steps") / "project")
    go_through(project, steps)
    assert content(project) == content(Project(project.folder.parent / "fresh"))
    shutil.rmtree(project.folder.parent)


@thorough
@given(steps=st.lists(STEPS | MORE, min_size=2, max_size=5))
def test_with_other_crops_too_the_end_has_the_rows_of_a_fresh_run(
    computed: dict[str, Project], tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any, int]]
) -> None:
    project = copy_of(computed["float32"], tmp_path_factory.mktemp("steps") / "project")
    go_through(project, steps)
    assert_close(project, Project(project.folder.parent / "fresh"))
    shutil.rmtree(project.folder.parent)


@contextmanager
def stopped_after(count: int) -> Iterator[None]:
    """Within, `embed` fails when it has written so many shards."""
    left = itertools.count(count, -1)
    write = stage.write_shard

    def write_or_stop(shard: Shard, rows: Sequence[Rows]) -> None:
        if next(left) <= 0:
            raise Stopped
        write(shard, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "write_shard", write_or_stop)
        yield


def run_or_stop(project: Project) -> bool:
    """Run `embed`; whether it was stopped."""
    try:
        in_folder(project.folder, EMBED)
    except Stopped:
        return True
    return False


def extended(project: Project) -> Project:
    """New images before, between and behind those that are there; nothing embedded yet."""
    for number in range(4):
        add(project, f"Grey_Heron/+{number}.jpg", 70 + number)
        add(project, f"blue tavo/1 {number}.jpg", 80 + number)
        add(project, f"red-crowned tavo/9{number}.jpg", 90 + number)
    in_folder(project.folder, INGEST, CROP)
    return project


@pytest.mark.parametrize("count", range(6))
def test_a_stopped_extension_goes_on_and_embeds_nothing_twice(project: Project, tmp_path: Path, count: int) -> None:
    """Of 21 images in six shards, stopped before each of them."""
    extended(project)
    old = {path.stem for path in (project.folder / "toy-images").rglob("?.jpg")}
    views = wanted(project)
    with stopped_after(count):
        assert run_or_stop(project)
    assert old_views(project.folder / VIEWS).is_dir(), "what was there is not lost"
    whole = set(content_of_visible(project))
    assert len(whole) == count
    there = set().union(*(pl.read_parquet(project.folder / VIEWS / name)["image_id"] for name in whole))
    new = {image_id for image_id in views if Path(image_id).stem not in old}
    assert len(new) == 12
    before = {name: (project.folder / VIEWS / name).stat().st_ino for name in whole}
    with encoded() as passes:
        in_folder(project.folder, EMBED)
    assert sum(passes) == sum(len(views[image_id]) for image_id in new - there)
    assert {name: (project.folder / VIEWS / name).stat().st_ino for name in whole} == before
    assert content(project) == fresh(project, tmp_path / "fresh")


def content_of_visible(project: Project) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (project.folder / VIEWS).glob("part-*.parquet")}


def test_a_stopped_run_that_is_cut_otherwise_embeds_nothing_twice(rounded: Project, tmp_path: Path) -> None:
    """After a stop earlier and later shards of one image wait side by side, each with crops that the other lacks."""
    before = wanted(rounded)
    rounded.edit(crop(iou_thresholds=[0.5, 0.9], max_views=8))
    in_folder(rounded.folder, CROP)
    between = wanted(rounded, max_views=8)
    with stopped_after(2):
        assert run_or_stop(rounded)
    done = set().union(*(pl.read_parquet(path)["image_id"] for path in (rounded.folder / VIEWS).glob("part-*")))
    assert 0 < len(done) < 9
    rounded.edit(crop(iou_thresholds=[0.5, 0.6, 0.8, 0.9], max_views=10))
    rounded.edit(lambda params: params["embed"].update(images_per_shard=3))
    in_folder(rounded.folder, CROP)
    after = wanted(rounded)
    there = {image_id: before[image_id] | (between[image_id] if image_id in done else set()) for image_id in after}
    assert any(before[image_id] - between[image_id] and between[image_id] - before[image_id] for image_id in done)
    with encoded() as passes:
        in_folder(rounded.folder, EMBED)
    lacking = [after[image_id] - there[image_id] for image_id in after]
    assert sum(passes) == sum(1 + len(crops) for crops in lacking if crops)
    fresh(rounded, tmp_path / "fresh")
    assert_close(rounded, Project(tmp_path / "fresh"))


def test_an_extension_killed_in_the_middle_costs_the_shards_under_way(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    project.edit(lambda params: params["embed"].update(images_per_shard=2))
    in_folder(project.folder, INGEST, CROP, EMBED)
    for number in range(14):  # large enough for a shard to take longer than a look at the folder
        add(project, f"Grey_Heron/+{number:02d}.jpg", number, size=(1000, 800))
        add(project, f"blue tavo/+{number:02d}.jpg", number + 50, size=(1000, 800))
    in_folder(project.folder, INGEST, CROP)
    views, total = wanted(project), -(-(9 + 28) // 2)
    new = {image_id for image_id in views if "+" in image_id}
    folder = project.folder / VIEWS
    for kill in (1, 2):
        known = set(content_of_visible(project)) if kill == 2 else set()
        command = [sys.executable, "-m", "stages.embed", "--dataset", "toy", "--model", "tiny"]
        process = subprocess.Popen(command, cwd=project.folder, env=project.environment(), stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        # The old shards have left once `.old` holds all five, so that then every one here is a new one.
        while process.poll() is None:
            assert time.monotonic() < deadline
            aside = list(old_views(folder).glob("*.parquet"))
            if len(aside) == 5 and {path.name for path in folder.glob("part-*")} - known:
                break
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"
        whole = {path.name: path for path in folder.glob("part-*")}
        assert 0 < len(whole) < total
        assert all(read_raw(path)[1]["shard"]["index"] < total for path in whole.values())
    there = set().union(*(pl.read_parquet(path)["image_id"] for path in whole.values()))
    before = {name: path.stat().st_ino for name, path in whole.items()}
    with encoded() as passes:
        in_folder(project.folder, EMBED)
    assert sum(passes) == sum(len(views[image_id]) for image_id in new - there)
    assert {name: path.stat().st_ino for name, path in whole.items()} == before, "whole shards are not written again"
    assert list(content(project)) == [f"part-{index:05d}.parquet" for index in range(total)], "and nothing else is left"
    assert content(project) == fresh(project, tmp_path / "fresh")


def test_what_does_not_belong_there_is_no_source_of_rows(project: Project, tmp_path: Path) -> None:
    """Broken, foreign and older files among what was set aside."""
    first, second, third = shards(project)
    aside = old_views(project.folder / VIEWS)
    aside.mkdir()
    table, meta = read_raw(second)
    (aside / "0.parquet").write_bytes(b"no Parquet")
    (aside / "1.parquet").write_bytes(first.read_bytes()[:700])
    (aside / "2.parquet").write_bytes(b"")
    shutil.copy(project.folder / BOXES, aside / "3.parquet")
    pl.DataFrame({"a": [1]}).write_parquet(aside / "4.parquet")
    # Rows that would be wrong, under metadata that an earlier or later version might have written.
    wrong = table.slice(3)
    write_raw(aside / "5.parquet", wrong, {**meta, "format": 3})
    write_raw(aside / "6.parquet", wrong, {**meta, "model": {**meta["model"], "weights": "0123456789abcdef"}})
    write_raw(aside / "7.parquet", wrong, {**meta, "shard": {"index": 0, "images": 4}})
    without_shard = {key: value for key, value in meta.items() if key != "shard"}
    write_raw(aside / "8.parquet", wrong, without_shard)
    first.write_bytes(first.read_bytes()[:-5])
    second.unlink()
    stays = third.stat().st_ino
    images = pl.read_parquet(project.folder / IMAGES)["image_id"].to_list()
    with encoded() as passes:
        in_folder(project.folder, EMBED)
    views = wanted(project)
    assert sum(passes) == sum(len(views[image_id]) for image_id in images[:8])
    assert shards(project)[2].stat().st_ino == stays
    assert content(project) == fresh(project, tmp_path / "fresh")


def test_shards_of_a_version_without_fingerprints_are_made_again(project: Project, tmp_path: Path) -> None:
    for path in shards(project):
        table, meta = read_raw(path)
        del meta["shard"]["crops_digests"]
        write_raw(path, table, meta)
    with encoded() as passes:
        in_folder(project.folder, EMBED)
    assert sum(passes) == sum(map(len, wanted(project).values()))
    assert content(project) == fresh(project, tmp_path / "fresh")


def test_shards_that_are_only_laid_out_again_are_not_held_in_memory(
    rounded: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image at the front moves every other to another place; their shards are written as they come."""
    for number in range(40):
        add(rounded, f"blue tavo/{number:03d}.jpg", number)
    rounded.edit(lambda params: params["embed"].update(images_per_shard=1))
    in_folder(rounded.folder, INGEST, CROP, EMBED)
    add(rounded, "Grey_Heron/+.jpg", 50)
    in_folder(rounded.folder, INGEST, CROP)
    held, most = set(), 0
    find, write = OldViews.work, stage.write

    def work(self: OldViews, shard: Shard) -> Work:
        nonlocal most
        held.add(shard.path)
        most = max(most, len(held))
        return find(self, shard)

    def written_now(work: Work, embedded: list[Embedded], model: str) -> None:
        write(work, embedded, model)
        held.remove(work.shard.path)

    monkeypatch.setattr(OldViews, "work", work)
    monkeypatch.setattr(stage, "write", written_now)
    with encoded() as passes:
        in_folder(rounded.folder, EMBED)
    assert sum(passes) == len(wanted(rounded)["Grey_Heron/+.jpg"])
    assert len(shards(rounded)) == 50
    assert most <= 12
    assert content(rounded) == fresh(rounded, tmp_path / "fresh")


@pytest.mark.parametrize("older", [as_format_1, without_digests])
def test_shards_of_earlier_versions_are_rewritten_without_encoding(
    project: Project, tmp_path: Path, older: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    for path in shards(project):
        table, meta = read_raw(path)
        write_raw(path, table, older(meta))
    with encoded() as passes:
        in_folder(project.folder, EMBED)
    assert list(passes) == []
    assert content(project) == fresh(project, tmp_path / "fresh")


def test_where_the_weights_came_from_decides_nothing(project: Project) -> None:
    """The same weights under another path: the shards stay as they are."""
    before = {path: path.stat().st_ino for path in shards(project)}
    (project.folder / "tiny-model").rename(project.folder / "elsewhere")
    project.edit(lambda params: params["models"]["tiny"].update(name="local-dir:elsewhere"))
    with encoded() as passes:
        in_folder(project.folder, EMBED)
    assert list(passes) == []
    assert {path: path.stat().st_ino for path in shards(project)} == before
