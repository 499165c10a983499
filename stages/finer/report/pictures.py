"""The plots as PNG: a point with a 95 % interval for each LVLM, a panel for each granularity or part of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stages.common.files import replacing
from stages.finer.report.plots import Row

INK, MUTED, GRID = "#222222", "#6b6b6b", "#e6e6e6"
STYLES = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "D"),
    ("#CC79A7", "^"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#000000", "X"),
)
"""Colours that colour-blind readers can tell apart (Okabe and Ito), and shapes for print in grey."""
LANE, BETWEEN = 0.17, 0.16
"""Height of an LVLM's lane in a row, and space between two rows, in inches."""
PANEL, APART = 2.5, 0.25
"""Width of a panel and the space beside it, in inches."""


def save(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write a figure as PNG, whole or not at all; the same figure gives the same bytes."""
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        options: dict[str, Any] = {"facecolor": "white", "bbox_inches": "tight", "pad_inches": 0.12}
        # Without matplotlib's version, the file is the same on every machine.
        figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None}, **options)


@dataclass(frozen=True)
class Plot:
    """The fields of the rows that are drawn, and the words around them."""

    title: str
    axis: str
    """Name of the measure."""
    value: str
    kind: str
    """Field with one row of the plot for each value."""
    panel: str | None = None
    """Field with one panel for each value, side by side."""
    below: str = "95 % intervals by resampled classes"
    """The second line of the title."""

    @property
    def difference(self) -> bool:
        """Values around 0 rather than 0 to 100."""
        return self.value == "difference"


def intervals(rows: Sequence[Row], lvlms: Sequence[str], plot: Plot) -> Figure:
    """Points with intervals of one data set: panels side by side, a row for each kind, in it a lane for each LVLM.

    Args:
        rows: at least one, as `stages.finer.report.plots` makes them.
        lvlms: all of them, so that an LVLM has the same colour and shape in every picture.
    """
    panels = list(dict.fromkeys(_panel(row, plot) for row in rows))
    kinds = list(dict.fromkeys(str(row[plot.kind]) for row in rows))
    shown = [lvlm for lvlm in lvlms if any(row["lvlm"] == lvlm for row in rows)]
    height = len(kinds) * (LANE * len(shown) + BETWEEN)
    wide = PANEL if plot.panel else 1.6 * PANEL
    total = len(panels) * (wide + APART) - APART
    figure = Figure(figsize=(total, height))
    limits = _around_zero(rows, plot.value) if plot.difference else (-4.0, 104.0)
    for place, panel in enumerate(panels):
        axes = figure.add_axes((place * (wide + APART) / total, 0, wide / total, 1))
        lanes = _Lanes(kinds, shown, lvlms)
        _draw(axes, [row for row in rows if _panel(row, plot) == panel], plot, lanes)
        axes.set_xlim(*limits)
        axes.set_xlabel(plot.axis, color=MUTED, fontsize=8.5)
        _annotate(axes, panel, (0.5, 1), (0, 5), color=INK, fontsize=9, ha="center")
        if plot.difference:
            axes.axvline(0, color=INK, linewidth=0.9, zorder=1)
        else:
            axes.set_xticks(range(0, 101, 20))
        if place:
            axes.tick_params(labelleft=False)
    first = figure.axes[0]
    raised = 18 if plot.panel else 2
    _annotate(first, plot.title, (0, 1), (0, raised + 20), color=INK, fontsize=11, fontweight="bold")
    _annotate(first, plot.below, (0, 1), (0, raised + 6), color=MUTED, fontsize=8.5)
    _legend(first, shown, lvlms, str(rows[0].get("note", "")), height, total)
    return figure


def _panel(row: Row, plot: Plot) -> str:
    return str(row[plot.panel]) if plot.panel else ""


def probe(rows: Sequence[Row], lvlms: Sequence[str], title: str) -> Figure:
    """Accuracy of a data set's probes before and after the projector: a line for each model, faint points for runs."""
    models = list(dict.fromkeys(str(row["model"]) for row in rows))
    known = list(dict.fromkeys([*lvlms, *models]))
    wide, height = 1.1 * PANEL, 1.9
    figure = Figure(figsize=(wide, height))
    axes = figure.add_axes((0, 0, 1, 1))
    for model in models:
        colour, marker = _style(model, known)
        means = []
        for place, side in enumerate(("before", "after")):
            runs = [float(row["accuracy"]) for row in rows if (row["model"], row["side"]) == (model, side)]
            axes.plot([place] * len(runs), runs, marker, color=colour, alpha=0.3, markersize=4, markeredgewidth=0)
            means.append(sum(runs) / len(runs))
        axes.plot([0, 1], means, marker=marker, color=colour, markersize=6, linewidth=1.6)
    chance = float(rows[0]["chance"])
    axes.axhline(chance, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    axes.set_xlim(-0.35, 1.35)
    axes.set_ylim(-4, 104)
    axes.set_xticks([0, 1], ["before the\nprojector", "after the\nprojector"], fontsize=9)
    axes.set_ylabel("accuracy (%)", color=MUTED, fontsize=8.5)
    _plain(axes, "y")
    axes.tick_params(axis="y", labelsize=8.5, colors=MUTED)
    count = len({row["run"] for row in rows})
    _annotate(axes, title, (0, 1), (0, 22), color=INK, fontsize=11, fontweight="bold")
    _annotate(axes, f"lines: means of {count} runs; dotted: chance", (0, 1), (0, 8), color=MUTED, fontsize=8.5)
    _legend(axes, models, known, str(rows[0].get("note", "")), height, wide, under=0.5)
    return figure


@dataclass(frozen=True)
class _Lanes:
    """Positions in inches from the top: a row for each kind, in it a lane for each LVLM."""

    kinds: list[str]
    shown: list[str]
    lvlms: Sequence[str]

    @property
    def pitch(self) -> float:
        return LANE * len(self.shown) + BETWEEN

    def middle(self, kind: str) -> float:
        return (self.kinds.index(kind) + 0.5) * self.pitch

    def height(self, kind: str, lvlm: str) -> float:
        return self.middle(kind) + LANE * (self.shown.index(lvlm) - (len(self.shown) - 1) / 2)


def _draw(axes: Axes, rows: Sequence[Row], plot: Plot, lanes: _Lanes) -> None:
    for row in rows:
        lvlm, kind = str(row["lvlm"]), str(row[plot.kind])
        colour, marker = _style(lvlm, lanes.lvlms)
        at = lanes.height(kind, lvlm)
        if "low" in row:
            axes.plot([row["low"], row["high"]], [at, at], color=colour, linewidth=1.6, solid_capstyle="butt", zorder=2)
        axes.plot([row[plot.value]], [at], marker, color=colour, markersize=5.5, clip_on=False, zorder=3)
    for place in range(1, len(lanes.kinds)):
        axes.axhline(place * lanes.pitch, color=GRID, linewidth=0.8, zorder=0)
    axes.set_ylim(len(lanes.kinds) * lanes.pitch, 0)
    axes.set_yticks([lanes.middle(kind) for kind in lanes.kinds], lanes.kinds, fontsize=9, parse_math=False)
    _plain(axes, "x")
    axes.tick_params(axis="x", labelsize=8.5, colors=MUTED)


def _plain(axes: Axes, grid: Literal["x", "y"]) -> None:
    """No frame on three sides, no ticks, a light grid behind."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(length=0)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _legend(
    axes: Axes, shown: Sequence[str], lvlms: Sequence[str], note: str, height: float, wide: float, under: float = 0.42
) -> None:
    """Names of the LVLMs in a column, `under` inches below the axes, and the note below them."""
    handles = []
    for name in shown:
        colour, marker = _style(name, lvlms)
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=5.5, linewidth=1.6, label=name))
    legend = axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0, -under / height),
        frameon=False,
        fontsize=8.5,
        borderpad=0,
        borderaxespad=0,
        labelspacing=0.35,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    if note:
        down = -72 * (under + 0.2 * len(shown) + 0.05)
        lines = fill(note, max(40, int(wide * 17)))
        _annotate(axes, lines, (0, 0), (0, down), color=MUTED, fontsize=8, fontstyle="italic", va="top")


def _style(name: str, names: Sequence[str]) -> tuple[str, str]:
    """Colour and shape of one of `names`. Later names repeat colours with other shapes."""
    place = list(names).index(name)
    turn = place // len(STYLES)
    return STYLES[place % len(STYLES)][0], STYLES[(place + turn) % len(STYLES)][1]


def _around_zero(rows: Sequence[Row], value: str) -> tuple[float, float]:
    """Limits that contain every interval and zero, with room at the ends."""
    ends = [float(row.get(end, row[value])) for row in rows for end in ("low", "high")]
    low, high = min(*ends, 0.0), max(*ends, 0.0)
    room = max(0.08 * (high - low), 2.0)
    return low - room, high + room


def _annotate(axes: Axes, text: str, at: tuple[float, float], shift: tuple[float, float], **style: Any) -> None:
    axes.annotate(text, at, shift, xycoords="axes fraction", textcoords="offset points", parse_math=False, **style)
