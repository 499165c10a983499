"""Training views: whole drawings and crops of them, at the model's size, with what can be seen in each."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from PIL import Image
from tqdm import tqdm

from stages.common.workers import worker_processes
from stages.demo.birds.draw import SIDE, Box, draw_bird, encode_jpeg
from stages.demo.birds.species import ATTRIBUTES, Look, random_look
from stages.demo.clip.captions import Facts, encode_facts

VIEW_SIDE = 64  # pixels, the model's input
CROP_SCALE = (0.5, 0.9)  # a crop's side as a share of the frame's

# The part that an attribute is seen on, and how much of its box must be in the view.
_SEEN_ON: dict[str, tuple[str, float]] = {
    "family": ("whole", 0.8),
    "crown": ("crown", 0.7),
    "back": ("back", 0.5),
    "belly": ("belly", 0.5),
    "tail": ("tail", 0.5),
    "legs": ("legs", 0.6),
    "beak": ("beak", 0.7),
    "wing": ("back", 0.7),
    "beak_shape": ("beak", 0.9),
    "tail_length": ("tail", 0.9),
}


@dataclass(frozen=True)
class Views:
    """``images`` [n, per drawing, 64, 64, 3] uint8, view 0 the whole frame; ``facts`` [n, per drawing, attributes]
    int8 as encode_facts has them, -1 where a part is out of view."""

    images: np.ndarray
    facts: np.ndarray


def visible_facts(look: Look, boxes: dict[str, Box], view: Box) -> Facts:
    """What can be seen of a bird in a part of its frame."""
    seen = {name: part for name, part in _SEEN_ON.items() if _share_inside(boxes[part[0]], view) >= part[1]}
    return {name: getattr(look, name) for name in seen}


def _share_inside(box: Box, view: Box) -> float:
    width = min(box[2], view[2]) - max(box[0], view[0])
    height = min(box[3], view[3]) - max(box[1], view[1])
    return max(width, 0.0) * max(height, 0.0) / ((box[2] - box[0]) * (box[3] - box[1]))


def drawing_views(seed: int, index: int, crops: int) -> tuple[np.ndarray, np.ndarray]:
    """One drawing's views and facts (shapes as in Views, without the first axis); depends on (seed, index) only."""
    rng = np.random.default_rng([seed, index])
    look = random_look(rng)
    drawing = draw_bird(look, rng)
    image = Image.open(io.BytesIO(encode_jpeg(drawing.image)))
    frames: list[Box] = [(0, 0, SIDE, SIDE)]
    for _ in range(crops):
        side = int(rng.uniform(*CROP_SCALE) * SIDE)
        left, top = (int(v) for v in rng.integers(0, SIDE - side + 1, 2))
        frames.append((left, top, left + side, top + side))
    size = (VIEW_SIDE, VIEW_SIDE)
    views = [np.asarray(image.resize(size, Image.Resampling.BICUBIC, box=frame)) for frame in frames]
    facts = [encode_facts(visible_facts(look, drawing.boxes, frame)) for frame in frames]
    return np.stack(views), np.stack(facts)


def _fill(folder: Path, seed: int, start: int, stop: int, crops: int) -> int:
    """Write drawings start..stop into the arrays in ``folder``."""
    images = np.load(folder / "images.npy", mmap_mode="r+")
    facts = np.load(folder / "facts.npy", mmap_mode="r+")
    for index in range(start, stop):
        images[index], facts[index] = drawing_views(seed, index, crops)
    return stop - start


def render(folder: Path, seed: int, drawings: int, crops: int, workers: int) -> None:
    """Draw the training set into ``folder``: images.npy and facts.npy as in Views, ``workers`` processes at a time."""
    shape = (drawings, 1 + crops)
    open_memmap(folder / "images.npy", "w+", np.uint8, (*shape, VIEW_SIDE, VIEW_SIDE, 3)).flush()
    open_memmap(folder / "facts.npy", "w+", np.int8, (*shape, len(ATTRIBUTES))).flush()
    chunk = 250
    with worker_processes(workers) as later:
        jobs = [
            later(_fill, folder, seed, start, min(start + chunk, drawings), crops)
            for start in range(0, drawings, chunk)
        ]
        for job in tqdm(jobs, desc="drawing training views", unit=f"x{chunk}", disable=None):
            job.result()
