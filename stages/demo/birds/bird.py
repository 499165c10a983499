"""One bird: its parts as polygons in its own units, painted in back-to-front order."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

from stages.demo.birds.species import COLOURS, RGB, Look

Points = np.ndarray  # [n, 2] float64; x to the right, y down; a bird's body is about 2 units long and faces right
Placer = Callable[[Points], Points]  # bird units -> canvas pixels


@dataclass(frozen=True)
class Plan:
    """A family's build: body half axes and tilt (degrees), head, leg length, wing length and width."""

    length: float
    height: float
    tilt: float
    head: tuple[float, float]
    head_radius: float
    legs: float
    wing: tuple[float, float]


PLANS = {
    "finch": Plan(0.95, 0.68, 16, (0.74, -0.62), 0.47, 0.50, (1.25, 0.46)),
    "wader": Plan(0.92, 0.54, 20, (1.02, -1.22), 0.36, 1.20, (1.25, 0.38)),
    "parrot": Plan(1.05, 0.60, 46, (0.74, -0.98), 0.53, 0.34, (1.35, 0.42)),
    "swallow": Plan(1.10, 0.47, 8, (1.00, -0.40), 0.41, 0.36, (1.75, 0.36)),
}


@dataclass
class Paint:
    """A polygon and what to fill it with; outline is a darker rim of the same hue."""

    points: Points
    colour: RGB
    outline: bool = True


@dataclass
class Bird:
    """Paints back to front, and for each part the points that it covers, in bird units. ``feet`` is their y."""

    paints: list[Paint]
    parts: dict[str, Points]
    feet: float

    def draw(self, canvas: ImageDraw.ImageDraw, place: Placer, line: int) -> None:
        """Paint on a canvas; ``line`` is the outline's width in pixels."""
        for paint in self.paints:
            corners = [(float(x), float(y)) for x, y in place(paint.points)]
            canvas.polygon(corners, fill=paint.colour)
            if paint.outline:
                canvas.line(
                    [*corners, corners[0]],
                    fill=mix(paint.colour, (20, 18, 24), 0.45),
                    width=line,
                    joint="curve",
                )


def mix(colour: RGB, other: RGB, share: float) -> RGB:
    """``colour`` with ``share`` of ``other`` in it."""
    r, g, b = (round(a + (c - a) * share) for a, c in zip(colour, other, strict=True))
    return r, g, b


def ellipse(centre: tuple[float, float], rx: float, ry: float, count: int = 40) -> Points:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([centre[0] + rx * np.cos(angle), centre[1] + ry * np.sin(angle)], axis=1)


def rotate(points: Points, degrees: float) -> Points:
    """Counter-clockwise as seen, y pointing down."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return points @ np.array([[c, -s], [s, c]])


def grow(look: Look, rng: np.random.Generator) -> Bird:
    """A bird of this look in a pose, and with small differences of colour and build, drawn from ``rng``."""
    plan = PLANS[look.family]
    tint = {
        part: _tinted(COLOURS[getattr(look, part)], rng) for part in ("crown", "back", "belly", "tail", "legs", "beak")
    }
    tilt = plan.tilt + rng.uniform(-8, 8)
    bird = Bird([], {}, 0.0)
    _add_tail(bird, look, plan, tilt + rng.uniform(-14, 10), tint["tail"])
    _add_legs(bird, plan, tilt, tint["legs"], rng)
    head = np.array(plan.head) + rng.uniform(-0.07, 0.07, 2)
    _add_beak(bird, look, head, plan.head_radius, tint["beak"], rng.uniform(-10, 10))
    _add_body(bird, plan, tilt, head, tint["back"], tint["belly"])
    _add_head(bird, head, plan.head_radius, tint["crown"])
    _add_wing(bird, look, plan, tilt + rng.uniform(-7, 7), tint["back"])
    return bird


def _tinted(colour: RGB, rng: np.random.Generator) -> RGB:
    shade = rng.uniform(0.9, 1.08) * (1 + rng.uniform(-0.04, 0.04, 3))
    r, g, b = (int(value) for value in np.clip(np.array(colour) * shade, 0, 255))
    return r, g, b


def _egg(plan: Plan, count: int = 60) -> Points:
    """The body before it is tilted: an ellipse that is fuller at the breast (+x) than at the rump."""
    points = ellipse((0, 0), 1, 1, count)
    return np.stack([points[:, 0] * plan.length, points[:, 1] * plan.height * (0.9 + 0.2 * points[:, 0])], axis=1)


def _add_tail(bird: Bird, look: Look, plan: Plan, angle: float, colour: RGB) -> None:
    length = 1.55 if look.tail_length == "long" else 0.55
    root, end = -0.72 * plan.length, -0.80 * plan.length - length
    fan = np.array(
        [
            [root, -0.17],
            [end, -0.20],
            [end - 0.10, -0.07],
            [end + 0.02, 0.03],
            [end - 0.08, 0.14],
            [end, 0.24],
            [root, 0.17],
        ]
    )
    points = rotate(fan, angle)
    bird.paints.append(Paint(points, colour))
    for y in (-0.06, 0.10):
        quill = np.array([[root, y * 0.4], [end + 0.05, y - 0.012], [end + 0.05, y + 0.024], [root, y * 0.4 + 0.02]])
        bird.paints.append(Paint(rotate(quill, angle), mix(colour, (20, 18, 24), 0.35), outline=False))
    bird.parts["tail"] = points


def _add_legs(bird: Bird, plan: Plan, tilt: float, colour: RGB, rng: np.random.Generator) -> None:
    ground = plan.height * 0.86 + plan.legs
    half = 0.055
    stride = rng.uniform(0.13, 0.24)
    legs = []
    for x, shade in ((-stride, 0.22), (stride, 0.0)):
        hip = x - 0.1 + 0.004 * tilt
        foot = hip + rng.uniform(-0.04, 0.14)
        shank = np.array([[hip - half, 0.2], [hip + half, 0.2], [foot + half, ground], [foot - half, ground]])
        left, right = foot - 0.17, foot + 0.30
        toes = np.array([[left, ground + 0.04], [foot - half, ground - 0.07], [foot + half, ground - 0.07],
                         [right, ground + 0.02], [right, ground + 0.08], [left, ground + 0.08]])  # fmt: skip
        tone = mix(colour, (20, 18, 24), shade)
        bird.paints += [Paint(shank, tone), Paint(toes, tone), Paint(shank, tone, outline=False)]
        legs += [shank[2:], toes, np.array([[hip, plan.height * 0.9]])]
    bird.parts["legs"] = np.concatenate(legs)
    bird.feet = ground + 0.06


def _beak(shape: str, r: float) -> Points:
    """A beak's outline around a head of radius r at the origin."""
    if shape == "conical":
        return r * np.array([[0.75, -0.42], [1.75, 0.10], [0.75, 0.46]])
    if shape == "straight":
        return r * np.array([[0.8, -0.20], [2.9, 0.06], [2.9, 0.13], [0.8, 0.24]])
    if shape == "hooked":
        return r * np.array([[0.7, -0.50], [1.20, -0.44], [1.58, -0.15], [1.70, 0.30], [1.58, 0.72], [1.38, 0.34],
                             [1.15, 0.30], [0.75, 0.42]])  # fmt: skip
    bend = np.linspace(0, 1, 10)[:, None]
    upper = np.concatenate([0.75 + 1.85 * bend, -0.20 + 1.25 * bend**2], axis=1)
    lower = np.concatenate([0.75 + 1.75 * bend, 0.24 + 0.85 * bend**2], axis=1)
    return r * np.concatenate([upper, lower[::-1]])


def _add_beak(bird: Bird, look: Look, head: Points, r: float, colour: RGB, nod: float) -> None:
    points = rotate(_beak(look.beak_shape, r), nod) + head
    bird.paints.append(Paint(points, colour))
    bird.parts["beak"] = points


def _add_body(bird: Bird, plan: Plan, tilt: float, head: Points, back: RGB, belly: RGB) -> None:
    """Body, neck and head in the back's colour; breast, belly and throat in the belly's."""
    egg = _egg(plan)
    r = plan.head_radius
    shoulder = rotate(
        np.array([[0.05 * plan.length, -0.80 * plan.height], [0.93 * plan.length, 0.12 * plan.height]]), tilt
    )
    toward = head - shoulder.mean(axis=0)
    across = np.array([toward[1], -toward[0]]) / np.linalg.norm(toward) * r * 0.80
    neck = np.array([shoulder[0], head + across, head - across, shoulder[1]])
    throat = np.array([shoulder.mean(axis=0) + 0.12 * toward, head + 0.05 * r, head - across, shoulder[1]])
    x = np.linspace(0.97, -0.97, 20)
    border = np.stack([x * plan.length, plan.height * (-0.28 - 0.10 * x - 0.15 * (1 - x**2))], axis=1)
    upper = np.concatenate([egg[egg[:, 1] < -0.1 * plan.height], border])
    shade_top = np.stack([x * plan.length * 0.94, plan.height * (0.42 + 0.40 * (1 - x**2))], axis=1)
    under = np.concatenate([egg[(egg[:, 1] > 0.42 * plan.height)], shade_top])
    lower_half = rotate(egg[egg[:, 1] > -0.1 * plan.height], tilt)
    bird.paints += [
        Paint(neck, back),
        Paint(ellipse((head[0], head[1]), r, r), back),
        Paint(rotate(egg, tilt), belly),
        Paint(neck, back, outline=False),
        Paint(throat, belly, outline=False),
        Paint(rotate(under, tilt), mix(belly, (60, 50, 80), 0.14), outline=False),
        Paint(rotate(upper, tilt), back, outline=False),
        Paint(ellipse((head[0], head[1]), r * 0.97, r * 0.97), back, outline=False),
    ]
    bird.parts["belly"] = lower_half


def _add_head(bird: Bird, head: Points, r: float, crown: RGB) -> None:
    angle = np.radians(np.linspace(172, 352, 24))
    cap = np.stack([head[0] + 1.03 * r * np.cos(angle), head[1] + 1.05 * r * np.sin(angle)], axis=1)
    brow = head + r * np.array([[0.62, -0.26], [0.1, -0.34], [-0.5, -0.16]])
    crest = np.concatenate([[head + r * np.array([-1.12, 0.02])], cap, brow])
    eye = (float(head[0] + 0.38 * r), float(head[1] - 0.02 * r))
    bird.paints += [
        Paint(crest, crown),
        Paint(ellipse(eye, 0.23 * r, 0.23 * r, 20), (238, 232, 220), outline=False),
        Paint(ellipse(eye, 0.17 * r, 0.17 * r, 20), (24, 20, 24), outline=False),
        Paint(
            ellipse((eye[0] + 0.06 * r, eye[1] - 0.06 * r), 0.06 * r, 0.06 * r, 10),
            (255, 255, 255),
            outline=False,
        ),
    ]
    bird.parts["crown"] = crest


def _wing_outline(length: float, width: float) -> Points:
    """A folded wing from its shoulder (+x) to its tip (-x), before it is tilted."""
    along = np.linspace(0, 1, 24)
    bulge = np.sin(np.pi * along**0.62) * width
    x = 0.52 - along * length
    top = np.stack([x, -0.12 - 0.45 * bulge + 0.16 * along], axis=1)
    bottom = np.stack([x, -0.12 + 0.85 * bulge + 0.16 * along], axis=1)
    return np.concatenate([top, bottom[::-1]])


def _add_wing(bird: Bird, look: Look, plan: Plan, angle: float, colour: RGB) -> None:
    length, width = plan.wing
    outline = _wing_outline(length, width)
    dark = sum(colour) > 330
    mark: RGB = (38, 34, 40) if dark else (246, 240, 222)
    wing = mix(colour, (20, 18, 24), 0.10)
    if look.wing == "edged":
        bird.paints.append(Paint(rotate(outline, angle), mark))
        centre = np.array([[0.52 - 0.42 * length, -0.02]])
        bird.paints.append(Paint(rotate((outline - centre) * [0.86, 0.66] + centre, angle), wing, outline=False))
    else:
        bird.paints.append(Paint(rotate(outline, angle), wing))
    if look.wing == "barred":
        bird.paints += [Paint(rotate(_bar(at, length, width), angle), mark, outline=False) for at in (0.24, 0.45, 0.66)]
    if look.wing == "spotted":
        spots = (
            (0.14, 0.15),
            (0.30, -0.1),
            (0.30, 0.52),
            (0.47, 0.2),
            (0.62, -0.1),
            (0.62, 0.45),
            (0.78, 0.2),
        )
        for at, across in spots:
            centre_of = (0.52 - at * length, -0.12 + across * width + 0.16 * at)
            bird.paints.append(Paint(rotate(ellipse(centre_of, 0.085, 0.085, 16), angle), mark, outline=False))
    bird.parts["back"] = rotate(outline, angle)


def _bar(at: float, length: float, width: float) -> Points:
    """A band across a wing, at a share of its length from the shoulder."""
    reach = float(np.sin(np.pi * at**0.62)) * width
    x, y = 0.52 - at * length, -0.12 + 0.16 * at
    return np.array([[x + 0.06, y - 0.40 * reach], [x - 0.05, y - 0.40 * reach], [x - 0.11, y + 0.76 * reach],
                     [x + 0.0, y + 0.78 * reach]])  # fmt: skip
