"""The methods that are compared: which views of an image meet which texts of a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.common import alignment
from stages.common.alignment import normalized, text_weights
from stages.common.errors import UserError
from stages.common.params import Score
from stages.common.tables import finite_rows

WHOLE, ALL, REFINED = "whole", "all", "refined"
"""Pools of views: the whole image; the first max_views candidates; those that survive the IoU filter."""

KEPT = "kept"
"""Stands for the rows that description refinement kept, whatever their source."""


@dataclass(frozen=True)
class Method:
    """A row of the table."""

    name: str
    views: str
    texts: str
    """Source of the texts, or KEPT."""
    combine: str
    """How a class's texts become one vector: "mean", "normalized mean", "descriptor mean" or "weighted"."""


METHODS = (
    Method("clip", WHOLE, "label", "mean"),  # arXiv 2103.00020
    Method("clip-e", WHOLE, "template", "normalized mean"),  # arXiv 2103.00020, section 3.1.4
    Method("clip-d", WHOLE, "clip-d", "descriptor mean"),  # arXiv 2210.07183
    Method("waffle", WHOLE, "waffle", "descriptor mean"),  # arXiv 2306.07282
    Method("cupl", WHOLE, "cupl", "normalized mean"),  # arXiv 2209.03320
    Method("wca", ALL, "cupl", "weighted"),  # arXiv 2406.02915
    Method("bifta-views", REFINED, "cupl", "weighted"),  # arXiv 2601.20419, its two halves and the whole
    Method("bifta-texts", ALL, KEPT, "weighted"),
    Method("bifta", REFINED, KEPT, "weighted"),
)


def available(texts: pa.Table, restricted: str | None = None) -> tuple[list[Method], list[str]]:
    """The methods whose texts are there, and for each other one a line that says which source it wants.

    Args:
        restricted: the key of the data set, where its entry restricts the sources.
    """
    listed = "`sources`" if restricted is None else f"`sources` and `datasets.{restricted}.sources`"
    sources = set(pc.unique(texts["source"]).to_pylist())
    if pc.any(texts["kept"]).as_py():
        sources.add(KEPT)
    wanted = {KEPT: "a source of sentences"}
    missing = [
        f"no row for {method.name}: it wants {wanted.get(method.texts, repr(method.texts))} under {listed} in "
        "params.yaml"
        for method in METHODS
        if method.texts not in sources
    ]
    return [method for method in METHODS if method.texts in sources], missing


def class_vectors(
    path: Path, texts: pa.Table, methods: Sequence[Method], classes: int, score: Score
) -> list[np.ndarray]:
    """For each method one vector a class: [C, D] float32. Methods with the same vectors get the same array.

    Raises:
        UserError: a class has no text of a method, or an embedding is not finite.
    """
    made: dict[tuple[str, str], np.ndarray] = {}
    embeddings = finite_rows(texts, path, "description" if "description" in texts.column_names else "source")
    for method in methods:
        key = (method.texts, method.combine)
        if key not in made:
            made[key] = _class_vectors(path, texts, embeddings, method, classes, score)
    return [made[method.texts, method.combine] for method in methods]


def _class_vectors(
    path: Path, texts: pa.Table, embeddings: np.ndarray, method: Method, classes: int, score: Score
) -> np.ndarray:
    """The vectors of one method, [C, D] float32.

    Weighted: by the texts' cosine to the label prompt (WCA, equation 6), normalised if `score.normalize`. The mean of
    descriptors is normalised in WCA's and BiFTA's code; without that the score is the mean of the descriptors' cosines,
    as CLIP-D and WaffleCLIP have it (`score.descriptor_mean`).
    """
    chosen = texts["kept"] if method.texts == KEPT else pc.equal(texts["source"], method.texts)
    chosen = pc.fill_null(chosen, False)
    rows = texts.filter(chosen)
    labels = rows["label"].to_numpy()
    counts = np.bincount(labels, minlength=classes)
    without = np.flatnonzero(counts == 0).tolist()
    if without:
        raise UserError(f"{path} has no texts of '{method.texts}' for labels {without[:10]}; run `dvc repro refine`")
    if method.combine == "weighted":
        weights = text_weights(rows["label_similarity"].to_numpy(), labels, classes, score.text_scale)
    else:
        weights = 1.0 / counts[labels]
    vectors = alignment.class_vectors(embeddings[chosen.to_numpy()], weights, labels, classes)
    unit = {
        "mean": False,
        "normalized mean": True,
        "descriptor mean": score.descriptor_mean == "normalized",
        "weighted": score.normalize,
    }[method.combine]
    return (normalized(vectors) if unit else vectors).astype(np.float32)


def first_equals(vectors: np.ndarray) -> np.ndarray:
    """The lowest label of the same vector, for each class: [C, D] float32 -> [C] int64.

    Classes with the same texts have the same vector but for rounding, and no image can tell them apart.
    """
    rounded = vectors.round(6) + 0.0  # no negative zeros
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(row.tobytes(), label) for label, row in enumerate(rounded)], dtype=np.int64)
