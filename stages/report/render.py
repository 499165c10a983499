"""A page of HTML in one file: its pictures are inside, and a browser that shows it asks nobody for anything.

The template `page.html` lays it out. Jinja escapes every value there, which is the only place where that is done. A
Content-Security-Policy on the page forbids scripts and requests as well.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import ClassVar

from jinja2 import Environment, StrictUndefined, Template
from PIL import Image

from stages.report.plots import shortened

LARGEST = (1700, 2600)
"""Width and height of a picture on the page, in pixels; larger ones are shrunk."""
QUALITY = 88
"""Of photos, as WebP; lines and small letters over them stay sharp."""
LONGEST = 1000
"""Characters of a name on the page; the middle of longer ones is left out."""
SCALE = 1.5
"""Pixels of a figure, which has 150 in an inch, for each pixel of the page, which has 96."""


@dataclass(frozen=True)
class Text:
    """A paragraph; what stands between backticks is code."""

    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Heading:
    """A heading within a section; it may be a name."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Bar:
    """Drawn behind a row of a table. `left` and `width` are in percent of its column."""

    left: float
    width: float
    falls: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows."""

    label: str
    """What it is, for screen readers."""
    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Collection[str] = ()
    """Headings of the columns that are aligned at the right."""
    bold: Collection[tuple[int, str]] = ()
    """Number of the row and heading of the column of each cell that stands out."""
    bars: Sequence[Bar] = ()
    """One for each row, or none."""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Picture:
    """A picture that the page holds."""

    label: str
    """What it is, for screen readers."""
    alt: str
    caption: str
    data: bytes
    """WebP."""
    width: int
    height: int
    """As it is shown, in CSS pixels."""
    names: Sequence[tuple[str, str]] = ()
    """Of what it shows: term and name."""
    kind: ClassVar[str] = "picture"

    @property
    def uri(self) -> str:
        return f"data:image/webp;base64,{base64.b64encode(self.data).decode('ascii')}"


@dataclass(frozen=True)
class Section:
    heading: str
    parts: Sequence[Text | Heading | Table | Picture]


@dataclass(frozen=True)
class Warned:
    text: str
    untrained: bool = False


@dataclass(frozen=True, kw_only=True)
class Page:
    title: str
    lead: str = ""
    warnings: Sequence[Warned] = ()
    facts: Sequence[tuple[str, str]] = ()
    sections: Sequence[Section] = field(default_factory=list)


def render(page: Page) -> str:
    """The page as HTML. The same content gives the same text."""
    return _template().render(page=page) + "\n"


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["name"] = _name
    return environment.from_string(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))


def _name(text: str) -> str:
    """A name as the page has it: of a very long one its ends, and no character that HTML cannot hold."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", shortened(text, LONGEST))


def picture(
    path: Path, *, label: str, alt: str, caption: str, names: Sequence[tuple[str, str]] = (), photo: bool = True
) -> Picture:
    """A picture of the report.

    Args:
        photo: whether it shows photos. Others are kept to the pixel, and are smaller so.
    """
    data, size = webp(path, photo)
    width, height = (max(1, round(side / SCALE)) for side in size)
    return Picture(label, alt, caption, data, width, height, names)


def webp(path: Path, photo: bool) -> tuple[bytes, tuple[int, int]]:
    """A picture as WebP, and its size in pixels."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    image.thumbnail(LARGEST, Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "WEBP", quality=QUALITY, lossless=not photo)
    return data.getvalue(), image.size
