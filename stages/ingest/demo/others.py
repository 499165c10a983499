"""draw-others: birds of looks that no species of the demo has, for the toy of ``stages/finer`` to learn to see on."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from stages.common.errors import UserError, run
from stages.common.seeding import generator
from stages.common.tables import replacing, write_text
from stages.ingest.demo.attributes import attribute_boxes, required_attributes
from stages.ingest.demo.draw import SIDE as DRAWN_SIDE
from stages.ingest.demo.draw import draw_bird, encode_jpeg
from stages.ingest.demo.species import SUPERORDINATE
from stages.ingest.demo.views import random_look

SIDE = 96  # pixels, to which the drawings are reduced
INDEX = "drawings.jsonl"
_CHUNK = 50  # drawings that a process is given at once


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
        with replacing(folder / image_name(index)) as temporary:
            temporary.write_bytes(data)
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
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(_draw_some, folder, seed, start, min(start + _CHUNK, count))
            for start in range(0, count, _CHUNK)
        ]
        done = tqdm(jobs, desc="drawing other birds", unit=f"x{_CHUNK}", disable=None)
        lines = [line for job in done for line in job.result()]
    write_text(folder / INDEX, "".join(f"{line}\n" for line in lines))


def _left_behind(folder: Path) -> Iterator[Path]:
    """Files that this module writes, under their own or their temporary names."""
    for path in list(folder.iterdir()):
        if re.fullmatch(r"\d{6,}\.jpg|\.\d{6,}\.jpg\.tmp", path.name):
            yield path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.ingest.demo.others", description=__doc__)
    parser.add_argument("--count", type=int, required=True, help="how many drawings")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the drawings and drawings.jsonl")
    options = parser.parse_args()
    if options.count < 1 or options.seed < 0:
        raise UserError(f"--count {options.count} --seed {options.seed}: the count is at least 1, the seed at least 0")
    draw_others(options.out, options.seed, options.count)
    print(f"draw-others: {options.count} drawings in {options.out}")


if __name__ == "__main__":
    run(main)
