"""From a class's texts to what a method compares views with: which rows, their weights, and one vector a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.common.alignment import class_vectors, normalized, text_weights
from stages.common.errors import UserError
from stages.common.methods import KEPT, Method
from stages.common.params import Score


def rows_of(texts: pa.Table, method: Method) -> np.ndarray:
    """Which rows of `texts.parquet` a method reads: [N] bool."""
    chosen = texts["kept"] if method.texts == KEPT else pc.equal(texts["source"], method.texts)
    found: np.ndarray = pc.fill_null(chosen, False).to_numpy()
    return found


def weights_of(path: Path, texts: pa.Table, method: Method, classes: int, score: Score) -> np.ndarray:
    """The weight of each text within its class, v_j: [N] float64.

    Weighted methods go by the texts' cosine to the label prompt (WCA, equation 6); the others weight all alike.

    Args:
        path: of the texts, for the message.
        texts: the rows of `rows_of`, with `label` and `label_similarity`.

    Raises:
        UserError: a class has no text of the method.
    """
    labels = texts["label"].to_numpy()
    counts = np.bincount(labels, minlength=classes)
    without = np.flatnonzero(counts == 0).tolist()
    if without:
        raise UserError(f"{path} has no texts of '{method.texts}' for labels {without[:10]}; run `dvc repro refine`")
    if method.combine == "weighted":
        return text_weights(texts["label_similarity"].to_numpy(), labels, classes, score.text_scale)
    return 1.0 / counts[labels]


def vectors_of(
    path: Path, texts: pa.Table, embeddings: np.ndarray, method: Method, classes: int, score: Score
) -> np.ndarray:
    """One vector a class, sum_j v_j T_j: [C, D] float32.

    A weighted sum is normalised if `score.normalize`. The mean of descriptors is normalised in WCA's and BiFTA's code;
    without that the score is the mean of the descriptors' cosines, as in CLIP-D's and WaffleCLIP's
    (`score.descriptor_mean`).

    Args:
        path: of the texts, for the message.
        texts: `texts.parquet`.
        embeddings: [N, D] float32, of its rows.

    Raises:
        UserError: as `weights_of`.
    """
    chosen = rows_of(texts, method)
    own = texts.filter(pa.array(chosen))
    weights = weights_of(path, own, method, classes, score)
    vectors = class_vectors(embeddings[chosen], weights, own["label"].to_numpy(), classes)
    unit = {
        "mean": False,
        "normalized mean": True,
        "descriptor mean": score.descriptor_mean == "normalized",
        "weighted": score.normalize,
    }[method.combine]
    return (normalized(vectors) if unit else vectors).astype(np.float32)
