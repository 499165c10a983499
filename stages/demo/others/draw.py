"""Birds of looks that no species of the demo has, for the toy of ``stages/finer`` to learn to see on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from stages.common.seeding import generator
from stages.common.tables import write_text
from stages.common.workers import worker_processes
from stages.demo.birds.attributes import attribute_boxes, required_attributes
from stages.demo.birds.draw import SIDE as DRAWN_SIDE
from stages.demo.birds.draw import draw_bird, encode_jpeg
from stages.demo.birds.species import SUPERORDINATE, random_look

SIDE = 96  # pixels of a drawing, after it was made smaller
INDEX = "drawings.jsonl"
_CHUNK = 50  # drawings that a process gets at once


def image_name(index: int) -> str:
    return f"{index:06d}.jpg"


def draw_other(seed: int, index: int) -> tuple[bytes, dict[str, object]]:
    """A JPEG of [96, 96] RGB and its line of ``drawings.jsonl``; depends on (seed, index) only."""
    rng = generator(seed, "others", str(index))
    look = random_look(rng)
    drawing = draw_bird(look, rng)
    image = drawing.image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    line: dict[str, object] = {
        "image": image_name(index),
        "superordinate": SUPERORDINATE,
        "family": look.family,
        "attributes": required_attributes(look),
        "boxes": [[round(at / DRAWN_SIDE, 4) for at in box] for box in attribute_boxes(drawing.boxes)],
    }
    return encode_jpeg(image), line


def _draw_some(folder: Path, seed: int, start: int, stop: int) -> list[str]:
    """Write drawings start..stop; their lines."""
    lines = []
    for index in range(start, stop):
        data, line = draw_other(seed, index)
        (folder / image_name(index)).write_bytes(data)  # the folder is whole only with its index
        lines.append(json.dumps(line))
    return lines


def draw_others(folder: Path, seed: int, count: int) -> None:
    """Write ``count`` drawings, and last ``drawings.jsonl``, by which the folder is whole.

    Drawings that a run of other numbers, or a killed one, left behind are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    wanted = {image_name(index) for index in range(count)}
    for path in _left_behind(folder):
        if path.name not in wanted:
            path.unlink()
    workers = min(len(os.sched_getaffinity(0)), -(-count // _CHUNK))
    with worker_processes(workers) as later:
        jobs = [later(_draw_some, folder, seed, start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
        done = tqdm(jobs, desc="drawing other birds", unit=f"x{_CHUNK}", disable=None)
        lines = [line for job in done for line in job.result()]
    write_text(folder / INDEX, "".join(f"{line}\n" for line in lines))


def _left_behind(folder: Path) -> Iterator[Path]:
    """Files that this module writes, under their own or their temporary names."""
    for path in list(folder.iterdir()):
        if re.fullmatch(r"\d{6,}\.jpg|\.\d{6,}\.jpg\.tmp", path.name):
            yield path
