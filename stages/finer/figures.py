"""The names in `metrics.json`: granularities, inputs, promptings, measures, and what stands beside the cells."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

GRANULARITIES = ("superordinate", "coarse", "fine")
INPUTS = ("image", "text", "image+attributes")
PROMPTINGS = ("plain", "cot", "few-shot-cot", "attrseek")
MEASURES = ("em", "f1", "strict_em", "strict_f1")
WITH_INTERVAL = ("em", "f1")
"""Those of a cell that get an interval; of a difference all do."""
SEEN, HELD_OUT = "seen", "held-out"
"""Parts of the classes: those that some conversation of the mixture is about, and those held out of it."""

GAP, ATTRSEEK_GAIN, GENERATION = "gap", "attrseek_gain", "generation"
"""What stands beside the cells of an LVLM and data set."""

Figures = dict[str, Any]
Parts = Mapping[str, Set[int]]
"""Labels of the classes of SEEN and of HELD_OUT; a class may be in neither."""
