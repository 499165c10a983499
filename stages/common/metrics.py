"""`metrics.json`, which belongs to a table: of predictions, or of scores. The table keeps a digest of its content."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from stages.common.digests import digest
from stages.common.errors import UserError
from stages.common.tables import Opened, write_json

Row = TypeVar("Row")

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


def read_metrics(
    path: Path, row: Callable[[str, Mapping[str, Any]], Row], predictions: Opened[Any] | None
) -> tuple[dict[str, Any], list[Row]]:
    """The content of the `metrics.json` of `score`, and a row for each method.

    Args:
        row: makes it of a method's name and figures.
        predictions: of these metrics; None if they are missing.

    Raises:
        UserError: the file is missing, is not JSON of that shape, or was not written with the predictions.
    """
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rows = [row(method, figures) for method, figures in raw.items() if isinstance(figures, dict)]
    except FileNotFoundError:
        raise UserError(f"{path} is missing; make it with `dvc repro`") from None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is not what the score stage writes ({error!r}); run `dvc repro -f`") from None
    if predictions:
        require_metrics(path, raw, predictions, "run `dvc repro -f score`")
    return raw, rows


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
