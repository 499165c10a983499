"""The published format of the benchmark's data: `unified-<data set>-<split>-combined.jsonl`, one image a line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One line: an image and its labels at three granularities. Multi-word labels are whole strings."""

    idx: int
    superordinate: str
    """`basic-level-lbl`."""
    coarse: list[str]
    """`coarse-level-lbl`, may be empty where the data set knows none."""
    fine: list[str]
    """`fine-level-lbl`, the class's name and other names that are right as well."""
    img_path: str
    """Relative to the project's root, or absolute."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Ours: `dataset`, `image_id`, `label`."""
