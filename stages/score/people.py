"""`predictions.csv`: one method's predictions, with the names of classes, for people."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from stages.common.files import replacing
from stages.common.labels import UNKNOWN
from stages.common.ranking import Best

COLUMNS = ("image", "true_class", "predicted", "score", "margin", "runner_up", "agreement", "method")


class People:
    """Writes the rows of one method as they come."""

    def __init__(self, file: TextIO, names: Sequence[str], method: str) -> None:
        """`names` are those of the classes, by label, each once."""
        self.method, self._names = method, names
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(COLUMNS)

    def add(self, image_ids: Sequence[str], labels: np.ndarray, found: Best) -> None:
        """Write B images.

        Args:
            labels: [B], the true ones.
        """
        true = ["" if label == UNKNOWN else self._names[label] for label in labels.tolist()]
        for row in named_rows(image_ids, true, found, self._names, self.method):
            self._writer.writerow(row[name] for name in COLUMNS)


def named_rows(
    image_ids: Sequence[str], true: Sequence[str], found: Best, names: Sequence[str], method: str
) -> Iterator[dict[str, Any]]:
    """One object for each of B images, with the keys of COLUMNS. Scores have 6 decimals.

    Args:
        true: names of the true classes; empty where they are not known.
        names: of all classes, by label.
    """
    best = zip(found.labels.tolist(), found.scores[:, 0].tolist(), found.margin.tolist(), strict=True)
    for image_id, of, (labels, score, margin), share in zip(
        image_ids, true, best, found.agreement.tolist(), strict=True
    ):
        yield {
            "image": image_id,
            "true_class": of,
            "predicted": names[labels[0]],
            "score": round(score, 6),
            "margin": round(margin, 6),
            "runner_up": names[labels[1]] if len(labels) > 1 else "",
            "agreement": round(share, 4),
            "method": method,
        }


@contextmanager
def open_people(path: Path, names: Sequence[str], method: str) -> Iterator[People]:
    """A writer of `predictions.csv`; the file appears at the end, whole."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield People(file, names, method)
