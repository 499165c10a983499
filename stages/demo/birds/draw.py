"""Draws the demo's images: a bird somewhere in a landscape, with the boxes of its parts."""

import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from stages.demo.birds.bird import Points, grow
from stages.demo.birds.scene import background, perch
from stages.demo.birds.species import SPECIES, SUPERORDINATE, Look

FAMILIES = "families.csv"
"""What each species is a kind of, beside the folders of the images; the reader `demo` takes it from there."""
SIDE = 240  # pixels
_OVERSAMPLING = 3  # drawn this much larger, then reduced: Pillow's polygons are not anti-aliased
_JPEG_QUALITY = 92

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


@dataclass
class Drawing:
    """An image [240, 240] RGB and where the bird ("whole") and its parts are in it."""

    image: Image.Image
    boxes: dict[str, Box]


def draw_bird(look: Look, rng: np.random.Generator) -> Drawing:
    """A bird of this look; pose, size, position, background and light come from ``rng``."""
    side = SIDE * _OVERSAMPLING
    bird = grow(look, rng)
    everything = np.concatenate([bird.parts[part] for part in sorted(bird.parts)])
    lean, mirrored = rng.uniform(-5, 5), rng.random() < 0.5
    c, s = np.cos(np.radians(lean)), np.sin(np.radians(lean))
    turn = np.array([[c, -s], [s, c]]) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    turned = everything @ turn
    low, high = turned.min(axis=0), turned.max(axis=0)
    unit = side * rng.uniform(0.46, 0.66) / (high - low).max()  # pixels a bird unit
    shift = rng.uniform(0.03 * side - low * unit, 0.97 * side - high * unit)

    def place(points: Points) -> Points:
        return points @ turn * unit + shift

    canvas = background(SIDE, rng).resize((side, side), Image.Resampling.BILINEAR)
    foot = place(np.array([[0.0, bird.feet]]))[0]
    perch(canvas, (float(foot[0]), float(foot[1])), float(unit), look.family == "wader", rng)
    bird.draw(ImageDraw.Draw(canvas), place, max(2, round(0.035 * unit)))
    boxes = {part: _box(place(points) / _OVERSAMPLING) for part, points in bird.parts.items()}
    boxes["whole"] = _box(place(everything) / _OVERSAMPLING)
    return Drawing(canvas.reduce(_OVERSAMPLING), boxes)


def _box(points: Points) -> Box:
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def encode_jpeg(image: Image.Image) -> bytes:
    """The image as the demo stores it."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def write_images(root: Path, seed: int, images_per_class: int) -> None:
    """Write ``root/<class name>/<index>.jpg`` for every species, spaces in names as underscores, and ``families.csv``.

    Each image depends on (seed, species, index) only, and comes out the same, byte for byte, each time.
    """
    rows = "".join(f"{species.name},{species.family},{SUPERORDINATE}\n" for species in SPECIES)
    _write(root / FAMILIES, f"name,coarse,superordinate\n{rows}".encode())
    jobs = [(species, index) for species in SPECIES for index in range(images_per_class)]
    for species, index in tqdm(jobs, desc="drawing birds", unit="image", disable=None):
        rng = np.random.default_rng([seed, zlib.crc32(species.name.encode()), index])
        path = root / species.name.replace(" ", "_") / f"{index:03d}.jpg"
        _write(path, encode_jpeg(draw_bird(species, rng).image))


def _write(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.tmp")
    unfinished.write_bytes(data)
    unfinished.replace(path)
