"""Names in pictures: fonts for scripts that matplotlib's own font lacks, or a substitute if the machine has none."""

from __future__ import annotations

from functools import cache

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from stages.common.errors import warn

OWN_FONT = "DejaVu Sans"
PLACEHOLDER = "Last Resort High-Efficiency"
"""A font of matplotlib's that has a box for every character."""

MOST_WORDS = 6
"""Words and code points of a substitute, which would be very long otherwise."""
_warned: list[str] = []
"""Texts that could not be drawn by this process."""


def make_legible(figure: Figure) -> None:
    """Give texts that matplotlib's font cannot draw a font of the machine that can.

    Where there is none, their characters are replaced by code points, such as U+9DB4, and one line warns.
    """
    families: dict[str, None] = {}
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [drawn.get_text() for drawn in axis.get_majorticklabels()]
            said = [_drawn(label, families) for label in labels]
            if said != labels:
                axis.set_ticklabels(said)  # `set_text` would not last, because an axis writes its labels again
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    for text in texts:
        text.set_text(_drawn(text.get_text(), families))
    for text in texts if families else ():
        text.set_fontfamily([*text.get_fontfamily(), *families])


def _drawn(text: str, families: dict[str, None]) -> str:
    """What is drawn for a text; notes the font that it needs, or warns that there is none."""
    said, family = drawable(text)
    if family:
        families[family] = None
    if said != text:
        _warn_once(text)
    return said


def drawable(text: str) -> tuple[str, str | None]:
    """What to draw for a text, and the font that it needs beside matplotlib's own."""
    odd = {ord(c) for c in text if not c.isspace()} - _characters(font_manager.findfont(OWN_FONT))
    if not odd:
        return text, None
    for name, path in _fonts().items():
        if odd <= _characters(path):
            return text, name
    words = "".join(f" U+{ord(c):04X} " if ord(c) in odd else c for c in text).split()
    return " ".join(words if len(words) <= MOST_WORDS else [*words[: MOST_WORDS - 2], "…", words[-1]]), None


@cache
def _fonts() -> dict[str, str]:
    """Name -> file of every upright font of the machine, in order of their names."""
    fonts = font_manager.fontManager.ttflist
    known = {font.name: font.fname for font in fonts if font.style == "normal" and font.name != PLACEHOLDER}
    return dict(sorted(known.items()))


@cache
def _characters(path: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # a font that cannot be read
        return frozenset()


def _warn_once(text: str) -> None:
    if not _warned:
        warn(
            f"no font of this machine can draw '{text}'; pictures show code points in its place. Install one that can, "
            "such as Noto Sans CJK (Debian and Ubuntu: fonts-noto-cjk), and run `dvc repro -f report`"
        )
    _warned.append(text)
