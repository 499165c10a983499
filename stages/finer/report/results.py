"""What the report reads: `metrics.json`, the probe's figures, and which data sets are the demo."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.common.errors import UserError
from stages.common.metrics import require_metrics
from stages.common.params import Params
from stages.common.tables import open_table
from stages.finer import paths
from stages.finer.artifacts import SCORES
from stages.finer.figures import Figures

DEMO_NOTE = "Toy model on drawings: shows that every part works, no evidence about the paper."
PROBE_KEYS = ("model", "dataset", "before", "after", "difference", "chance", "images")


@dataclass(frozen=True)
class Results:
    metrics: dict[str, dict[str, Figures]]
    """`{lvlm: {dataset: figures}}`, as `stages.finer.score.metrics` makes them."""
    probes: list[dict[str, Any]]
    demo: frozenset[str]
    """Data sets that are the demo."""

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(dataset for own in self.metrics.values() for dataset in own))

    @property
    def lvlms(self) -> list[str]:
        return list(self.metrics)

    def of(self, dataset: str) -> Iterator[tuple[str, Figures]]:
        """The LVLMs that were asked about `dataset`, each with its figures, in the order of params.yaml."""
        return ((lvlm, own[dataset]) for lvlm, own in self.metrics.items() if dataset in own)

    def note(self, dataset: str) -> str:
        """The note that every figure of `dataset` needs, or an empty string."""
        return DEMO_NOTE if dataset in self.demo else ""


def read_results(params: Params) -> Results:
    """Read what the score and probe stages wrote. There may be no probe.

    Raises:
        UserError: no metrics, or files that are not what those stages write.
    """
    metrics = _read_json(paths.METRICS, "score")
    if not _is_nested(metrics):
        raise UserError(f"{paths.METRICS} is not what the score stage writes; run `python -m stages.finer.score`")
    if paths.SCORES.exists():  # metrics may have come with git alone
        require_metrics(paths.METRICS, metrics, open_table(paths.SCORES, SCORES), "run `python -m stages.finer.score`")
    probes = []
    for path in sorted(paths.PROBE.rglob("*.json")):
        probe = _read_json(path, "probe")
        if not isinstance(probe, dict) or any(key not in probe for key in PROBE_KEYS):
            raise UserError(f"{path} is not what the probe stage writes; delete it, or run the stage again")
        probes.append(probe)
    order = {lvlm: place for place, lvlm in enumerate(metrics)}
    probes.sort(key=lambda probe: (probe["dataset"], order.get(probe["model"], len(order))))
    demo = frozenset(key for key, entry in params.datasets.items() if entry.reader == "demo")
    return Results(metrics, probes, demo)


def _is_nested(metrics: Any) -> bool:
    """Whether this is `{lvlm: {dataset: {...}}}` without empty levels."""
    levels = [metrics]
    for _ in range(2):
        if not all(isinstance(level, dict) and level for level in levels):
            return False
        levels = [value for level in levels for value in level.values()]
    return all(isinstance(level, dict) for level in levels)


def _read_json(path: Path, stage: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; make it with `make finer`") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); run `python -m stages.finer.{stage}` again") from None
