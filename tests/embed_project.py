"""What tests of `embed` share: a toy data set embedded with the tiny model, and a count of what is encoded."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
import torch
from conftest import Project, make_project, run_stages

from stages.common.encoders import Encoder

VIEWS = Path("data/toy/tiny/views")
BOXES = Path("data/toy/boxes.parquet")
IMAGES = Path("data/toy/images.parquet")
INGEST, CROP, EMBED = "ingest --dataset toy", "crop --dataset toy", "embed --dataset toy --model tiny"


def in_folder(folder: Path, *lines: str, threads: int = 1) -> None:
    """Run stages in `folder`, in this process; with one thread as a subprocess of `Project` computes."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", [])
        torch.set_num_threads(threads)
        try:
            run_stages(*lines)
            assert torch.get_num_threads() == threads, "a stage leaves the setting as it was"
        finally:
            torch.set_num_threads(before)


def shards(project: Project) -> list[Path]:
    """Everything in the folder of shards, hidden files too."""
    return sorted((project.folder / VIEWS).iterdir())


def content(project: Project) -> dict[str, bytes]:
    """Name of each shard -> its bytes; fails on anything else in the folder."""
    return {path.name: path.read_bytes() for path in shards(project)}


def written(project: Project) -> dict[str, tuple[int, int]]:
    """Name of each shard -> when it was written, and its inode."""
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in shards(project)}


def fresh(project: Project, folder: Path) -> dict[str, bytes]:
    """The shards that a run from nothing makes of the same inputs in an empty folder."""
    shutil.copytree(project.folder, folder, ignore=shutil.ignore_patterns("data"))
    in_folder(folder, INGEST, CROP, EMBED)
    return content(Project(folder))


def embedded_project(folder: Path, precision: str) -> Project:
    """A project of nine images in shards of four, embedded."""
    made = make_project(folder)
    made.edit(lambda params: params.update(precision=precision))
    in_folder(made.folder, INGEST, CROP, EMBED)
    return made


def wanted(project: Project, max_views: int = 10) -> dict[str, set[int]]:
    """Image -> the candidates to embed, worked out from boxes.parquet; -1 is the whole image."""
    boxes = pl.read_parquet(project.folder / BOXES)
    chosen = boxes.filter((pl.col("candidate") < max_views) | (pl.col("kept").list.len() > 0))
    found: dict[str, set[int]] = {image_id: {-1} for image_id in boxes["image_id"]}
    for image_id, candidate in chosen.select("image_id", "candidate").iter_rows():
        found[image_id].add(candidate)
    return found


@contextmanager
def encoded() -> Iterator[list[int]]:
    """Counts views that the encoder is given in this process: the length of every forward pass."""
    passes: list[int] = []
    encode = Encoder.encode_images

    def counting(self: Encoder, pixels: torch.Tensor) -> torch.Tensor:
        passes.append(len(pixels))
        return encode(self, pixels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "encode_images", counting)
        yield passes
