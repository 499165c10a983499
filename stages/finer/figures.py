"""The names in `metrics.json` beside granularities, modalities and prompting styles."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

MEASURES = ("em", "f1", "strict_em", "strict_f1")
WITH_INTERVAL = ("em", "f1")
"""The measures of a cell that have an interval. In a difference all measures have one."""
SEEN, HELD_OUT = "seen", "held-out"
"""Parts of the classes: those that the mixture has conversations about, and those held out of it."""

GAP, ATTRSEEK_GAIN, GENERATION = "gap", "attrseek_gain", "generation"
"""Keys beside the cells of an LVLM and data set."""

Figures = dict[str, Any]
Parts = Mapping[str, Set[int]]
"""Labels of the classes in SEEN and in HELD_OUT. A class may be in neither."""
