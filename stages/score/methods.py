"""Which methods can be scored with the existing texts, and their class vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.common import methods
from stages.common.class_texts import vectors_of
from stages.common.columns import embedding_rows
from stages.common.methods import KEPT, Method
from stages.common.params import Score


def available(texts: pa.Table, restricted: str | None = None) -> tuple[list[Method], list[str]]:
    """The methods whose texts exist, and for each of the others a line that names the missing source.

    Args:
        restricted: the key of the data set, if its entry restricts the sources.
    """
    listed = "`sources`" if restricted is None else f"`sources` and `datasets.{restricted}.sources`"
    sources = set(pc.unique(texts["source"]).to_pylist())
    if pc.any(texts["kept"]).as_py():
        sources.add(KEPT)
    wanted = {KEPT: "a source of sentences"}
    missing = [
        f"no row for {method.name}: it wants {wanted.get(method.texts, repr(method.texts))} under {listed} in "
        "params.yaml"
        for method in methods.METHODS
        if method.texts not in sources
    ]
    return [method for method in methods.METHODS if method.texts in sources], missing


def class_vectors(
    path: Path, texts: pa.Table, compared: Sequence[Method], classes: int, score: Score
) -> list[np.ndarray]:
    """For each method one vector for each class: [C, D] float32. Methods with the same vectors get the same array.

    Raises:
        UserError: a class has no text of a method.
    """
    made: dict[tuple[str, str], np.ndarray] = {}
    embeddings = embedding_rows(texts["embedding"])
    for method in compared:
        key = (method.texts, method.combine)
        if key not in made:
            made[key] = vectors_of(path, texts, embeddings, method, classes, score)
    return [made[method.texts, method.combine] for method in compared]


def first_equals(vectors: np.ndarray) -> np.ndarray:
    """The lowest label of the same vector, for each class: [C, D] float32 -> [C] int64.

    Classes with the same texts have the same vector within rounding, and no method can distinguish them.
    """
    rounded = vectors.round(6) + 0.0  # no negative zeros
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(row.tobytes(), label) for label, row in enumerate(rounded)], dtype=np.int64)
