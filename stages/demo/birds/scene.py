"""What is behind and under a bird: soft backgrounds and things to stand on."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from stages.demo.birds.bird import mix
from stages.demo.birds.species import RGB


def background(side: int, rng: np.random.Generator) -> Image.Image:
    """A blurred landscape [side, side] RGB in light that varies."""
    kinds: tuple[Callable[[Image.Image, np.random.Generator], None], ...]
    kinds = (_meadow, _wood, _shore, _snow, _dusk, _garden)
    top, bottom = SKIES[int(rng.integers(len(SKIES)))]
    image = _gradient(side, top, bottom)
    kinds[int(rng.integers(len(kinds)))](image, rng)
    image = image.filter(ImageFilter.GaussianBlur(side * float(rng.uniform(0.006, 0.02))))
    light = rng.uniform(0.85, 1.1)
    return image.point(lambda value: min(255, int(value * light)))


SKIES: tuple[tuple[RGB, RGB], ...] = (
    ((150, 200, 236), (226, 240, 246)),
    ((176, 206, 214), (238, 238, 226)),
    ((120, 176, 226), (206, 228, 240)),
    ((200, 210, 220), (236, 236, 238)),
)


def perch(image: Image.Image, foot: tuple[float, float], unit: float, tall: bool, rng: np.random.Generator) -> None:
    """Draw what the bird stands on below ``foot`` (pixels); ``unit`` is half a body in pixels."""
    draw = ImageDraw.Draw(image)
    x, y = foot
    kind = "ground" if tall else str(rng.choice(["branch", "branch", "rock", "post", "ground"]))
    if kind == "branch":
        _branch(draw, image.width, x, y, unit, rng)
    elif kind == "rock":
        angle = np.linspace(np.pi, 2 * np.pi, 14)
        bumps = 1 + rng.uniform(-0.08, 0.08, 14)
        bumps[5:10] = 1
        rock = [
            (x + 1.3 * unit * np.cos(a) * b, y + 0.9 * unit + 0.9 * unit * np.sin(a) * b)
            for a, b in zip(angle, bumps, strict=True)
        ]
        draw.polygon([*rock, (x + 1.5 * unit, image.height), (x - 1.5 * unit, image.height)], fill=(122, 120, 122))
        draw.polygon([*rock[2:9], (x - 0.2 * unit, y + 0.35 * unit)], fill=(148, 146, 146))
    elif kind == "post":
        draw.rectangle((x - 0.5 * unit, y, x + 0.6 * unit, image.height), fill=(132, 108, 84))
        draw.rectangle((x + 0.25 * unit, y, x + 0.6 * unit, image.height), fill=(110, 88, 68))
        draw.ellipse((x - 0.5 * unit, y - 0.1 * unit, x + 0.6 * unit, y + 0.12 * unit), fill=(164, 138, 108))
    else:
        _ground(draw, image.width, image.height, y, unit, rng)


def _branch(draw: ImageDraw.ImageDraw, width: int, x: float, y: float, unit: float, rng: np.random.Generator) -> None:
    slope, thick = rng.uniform(-0.10, 0.10), 0.2 * unit
    left, right = y - slope * x + thick / 2, y + slope * (width - x) + thick / 2
    draw.line([(0, left), (width, right)], fill=(92, 68, 48), width=int(thick))
    draw.line(
        [(0, left - thick * 0.25), (width, right - thick * 0.25)],
        fill=(122, 94, 68),
        width=max(1, int(thick * 0.3)),
    )
    leaf = mix((86, 130, 66), (176, 150, 60), float(rng.uniform(0, 0.7)))
    for at in rng.uniform(0, width, int(rng.integers(3, 8))):
        if abs(at - x) < 1.2 * unit:  # keep leaves off the bird's feet
            continue
        base, lean, size = (
            left + (right - left) * at / width,
            rng.uniform(-0.35, 0.35),
            unit * rng.uniform(0.25, 0.45),
        )
        up = 1 if rng.random() < 0.5 else -1
        tip = (at + lean * 2 * size, base + up * 1.6 * size)
        middle = ((at + tip[0]) / 2, (base + tip[1]) / 2)
        draw.polygon(
            [(at, base), (middle[0] - 0.3 * size, middle[1]), tip, (middle[0] + 0.3 * size, middle[1])],
            fill=leaf,
        )


def _ground(
    draw: ImageDraw.ImageDraw, width: int, height: int, y: float, unit: float, rng: np.random.Generator
) -> None:
    soil: RGB = ((132, 158, 88), (206, 188, 148), (226, 230, 234), (150, 124, 96))[int(rng.integers(4))]
    edge = y - unit * rng.uniform(0.1, 0.5)
    draw.rectangle((0, edge, width, height), fill=soil)
    for x in rng.uniform(0, width, 26):
        base, size = rng.uniform(edge + 0.1 * unit, height), unit * rng.uniform(0.10, 0.28)
        tone = mix(soil, (60, 70, 40), float(rng.uniform(0.1, 0.4)))
        draw.polygon([(x, base), (x + 0.2 * size, base), (x + rng.uniform(-0.6, 0.6) * size, base - size)], fill=tone)


def _gradient(side: int, top: RGB, bottom: RGB) -> Image.Image:
    ramp = np.linspace(np.array(top), np.array(bottom), side)[:, None, :].repeat(side, axis=1)
    return Image.fromarray(ramp.astype(np.uint8))


def _hill(image: Image.Image, level: float, colour: RGB, rng: np.random.Generator) -> None:
    """A wavy silhouette from ``level`` (share of the height) down."""
    side = image.width
    x = np.linspace(0, side, 24)
    phase, waves = rng.uniform(0, 6.3, 2), rng.uniform(1, 3, 2)
    y = side * (
        level + 0.05 * np.sin(waves[0] * x / side * 3 + phase[0]) + 0.025 * np.sin(waves[1] * x / side * 7 + phase[1])
    )
    ridge = [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
    ImageDraw.Draw(image).polygon([*ridge, (side, side), (0, side)], fill=colour)


def _blobs(
    image: Image.Image,
    count: int,
    size: tuple[float, float],
    colours: tuple[RGB, ...],
    band: tuple[float, float],
    rng: np.random.Generator,
) -> None:
    """Discs with radii and heights in the ranges ``size`` and ``band`` (shares of the side)."""
    draw = ImageDraw.Draw(image)
    for _ in range(count):
        r = image.width * rng.uniform(*size)
        x, y = image.width * rng.uniform(0, 1), image.width * rng.uniform(*band)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colours[int(rng.integers(len(colours)))])


def _meadow(image: Image.Image, rng: np.random.Generator) -> None:
    _hill(image, rng.uniform(0.45, 0.6), (138, 174, 128), rng)
    _hill(image, rng.uniform(0.62, 0.75), (122, 164, 84), rng)
    _blobs(image, 24, (0.006, 0.014), ((236, 220, 120), (240, 240, 240), (206, 120, 150)), (0.75, 1.0), rng)


def _wood(image: Image.Image, rng: np.random.Generator) -> None:
    _blobs(image, 26, (0.06, 0.16), ((96, 136, 90), (120, 156, 100), (78, 116, 82)), (0.0, 0.9), rng)
    draw = ImageDraw.Draw(image)
    for x in rng.uniform(0, image.width, 4):
        w = image.width * rng.uniform(0.015, 0.045)
        draw.rectangle((x, 0, x + w, image.width), fill=(112, 98, 84))
    _hill(image, rng.uniform(0.82, 0.9), (92, 112, 72), rng)


def _shore(image: Image.Image, rng: np.random.Generator) -> None:
    side, level = image.width, rng.uniform(0.45, 0.6)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, side * level, side, side), fill=(104, 158, 178))
    for y in rng.uniform(level, level + 0.22, 6):
        draw.line([(0, side * y), (side, side * y)], fill=(150, 192, 204), width=max(1, side // 120))
    _hill(image, level + rng.uniform(0.2, 0.28), (214, 198, 160), rng)


def _snow(image: Image.Image, rng: np.random.Generator) -> None:
    _hill(image, rng.uniform(0.5, 0.6), (206, 216, 228), rng)
    draw, side = ImageDraw.Draw(image), image.width
    for x in rng.uniform(0, side, 6):
        h, base = side * rng.uniform(0.1, 0.24), side * rng.uniform(0.58, 0.72)
        draw.polygon([(x - 0.3 * h, base), (x + 0.3 * h, base), (x, base - h)], fill=(92, 120, 112))
    _hill(image, rng.uniform(0.7, 0.8), (232, 236, 242), rng)


def _dusk(image: Image.Image, rng: np.random.Generator) -> None:
    image.paste(_gradient(image.width, (120, 124, 168), (240, 190, 160)))
    _blobs(image, 1, (0.05, 0.09), ((250, 222, 170),), (0.3, 0.55), rng)
    _hill(image, rng.uniform(0.6, 0.7), (128, 112, 136), rng)
    _hill(image, rng.uniform(0.76, 0.84), (92, 88, 104), rng)


def _garden(image: Image.Image, rng: np.random.Generator) -> None:
    image.paste(_gradient(image.width, (170, 196, 150), (128, 160, 112)))
    soft: tuple[RGB, ...] = (
        (196, 214, 170),
        (214, 204, 176),
        (150, 184, 150),
        (222, 190, 196),
        (190, 206, 216),
    )
    _blobs(image, 22, (0.03, 0.10), soft, (0.0, 1.0), rng)
