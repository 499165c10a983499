"""`metrics.json`, which belongs to a table: of predictions, or of scores. The table keeps a digest of its content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.common.digests import digest
from stages.common.errors import UserError
from stages.common.tables import Opened, write_json

METRICS = "metrics"
"""The name of the digest beside the table's own."""


def metrics_digest(metrics: Mapping[str, Any]) -> str:
    """Digest of the content of `metrics.json`."""
    return digest(metrics)


def require_metrics(path: Path, content: Any, table: Opened[Any], remedy: str) -> None:
    """Refuse metrics that were not written with their table.

    Args:
        path: of the metrics.
        content: what it holds.

    Raises:
        UserError: names both files.
    """
    if table.digests.get(METRICS) != metrics_digest(content):
        raise UserError(f"{path} is not of {table.path}, or was changed; {remedy}")


def write_metrics(path: Path, metrics: Mapping[str, Any]) -> None:
    """Write `metrics.json`, and beside it `top1.json` for DVC's tables: one number for each method.

    Args:
        metrics: method -> `Tally.metrics`, or `Certainty.metrics`, which has no accuracy for `top1.json`. Other
            entries, such as a warning about the weights, go into `top1.json` as they are.
    """
    of_methods = {name: own for name, own in metrics.items() if isinstance(own, dict)}
    notes = {name: own for name, own in metrics.items() if name not in of_methods}
    write_json(path, metrics)
    write_json(
        path.with_name("top1.json"), {name: own["top1"] for name, own in of_methods.items() if "top1" in own} | notes
    )
