"""What decided the prediction of `bifta`: each view's weight and contribution to a class, and the matching
descriptions.

A class's score is a sum over views and a sum over descriptions, so every box and every sentence has a share of it
(WCA, arXiv 2406.02915, equation 5; BiFTA, arXiv 2601.20419, section 3). Here every kept view counts once, while a
scored run draws among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from stages.common import paths
from stages.common.alignment import class_vectors, normalized, view_weights
from stages.common.artifacts import TEXTS, Metadata, PredictionsParameters
from stages.common.class_texts import rows_of, weights_of
from stages.common.columns import WHOLE, embedding_rows
from stages.common.labels import ClassTable
from stages.common.methods import FULL, find
from stages.common.params import Score
from stages.common.tables import read_table, require_same, require_same_model
from stages.common.views import Rows, find_shards, shard_paths
from stages.report.pictures import Candidates

MATCHES = 6
"""Descriptions that are shown of a class."""


@dataclass(frozen=True)
class Texts:
    """The N descriptions that refinement kept, of all classes."""

    labels: np.ndarray
    """[N] int32."""
    descriptions: list[str]
    weights: np.ndarray
    """[N] float64: v_j, which sum to 1 within a class."""
    embeddings: np.ndarray
    """[N, D] float32."""


@dataclass(frozen=True)
class Match:
    """A description that matched the image."""

    description: str
    weight: float
    """v_j."""
    cosine: float
    """sum_i w_i cos(I_i, T_j)."""
    contribution: float
    """Their product, in units of the class's score."""


@dataclass(frozen=True)
class Side:
    """A class that an image is compared with."""

    label: int
    score: float
    contributions: np.ndarray
    """[K] float64, of each accepted view; they sum to the score."""
    matches: list[Match]
    """Those that contributed most, first."""


@dataclass(frozen=True)
class Evidence:
    """What decided about an image. Accepted and rejected boxes are ordered by descending weight."""

    accepted: np.ndarray
    """[K, 4] int32 left, top, right, bottom."""
    weights: np.ndarray
    """[K] float64: w_i, which sum to 1."""
    rejected: np.ndarray
    """[R, 4] int32: rejected, but embedded for the methods that do not refine views."""
    hypothetical_weights: np.ndarray
    """[R] float64: the weight of each if it alone were accepted too."""
    sides: list[Side]
    """The true class, and the predicted one; if they are the same, the next best class if there is one."""
    right: bool


def weigh(similarity: np.ndarray, kept: np.ndarray, image_scale: float) -> np.ndarray:
    """Weights of views: w_i = softmax(exp(image_scale) * cos(I_i, whole image)) over the kept ones.

    Args:
        similarity: [P] cosine to the whole image.
        kept: [P] bool, at least one.

    Returns:
        [P] float64. A view that is not kept gets the weight that it would have if it alone were added to the kept ones.
    """
    weights = np.empty(len(similarity))
    weights[kept] = view_weights(similarity[kept], image_scale)
    for place in np.flatnonzero(~kept):
        weights[place] = view_weights(np.append(similarity[kept], similarity[place]), image_scale)[-1]
    return weights


def hold_against(
    views: np.ndarray, weights: np.ndarray, texts: np.ndarray, text_weights: np.ndarray, normalize: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split <sum_i w_i I_i, sum_j v_j T_j> by views and by texts.

    Args:
        views: [K, D]; weights: [K]; texts: [M, D] of one class; text_weights: [M].
        normalize: both sums are normalised before their product, as `score.normalize` says; the shares then are of
            that product.

    Returns:
        [K] shares of the views and [M] shares of the texts, which both sum to the score, and
        [M] sum_i w_i cos(I_i, T_j), all float64.
    """
    image, of_class = weights @ views, text_weights @ texts
    scale = 1 / (np.linalg.norm(image) * np.linalg.norm(of_class)) if normalize else 1.0
    cosines = texts @ image
    return weights * (views @ of_class) * scale, text_weights * cosines * scale, cosines


def class_scores(image: np.ndarray, texts: Texts, classes: int, normalize: bool) -> np.ndarray:
    """[C] float64: the score of every class, for sum_i w_i I_i [D]."""
    vectors = class_vectors(texts.embeddings, texts.weights, texts.labels, classes)
    scores: np.ndarray = (normalized(vectors) if normalize else vectors) @ image
    return scores / np.linalg.norm(image) if normalize else scores


def side(label: int, views: np.ndarray, weights: np.ndarray, texts: Texts, normalize: bool) -> Side:
    """How the accepted views [K, D] and the descriptions of `label` match."""
    rows = np.flatnonzero(texts.labels == label)
    of_views, of_texts, cosines = hold_against(
        views, weights, texts.embeddings[rows].astype(np.float64), texts.weights[rows], normalize
    )
    best = np.argsort(-of_texts, kind="stable")[:MATCHES]
    matches = [
        Match(texts.descriptions[rows[i]], float(texts.weights[rows[i]]), float(cosines[i]), float(of_texts[i]))
        for i in best
    ]
    return Side(label, float(of_views.sum()), of_views, matches)


def gather(
    candidates: Candidates, views: Rows, texts: Texts, answer: tuple[int, int], classes: int, parameters: Score
) -> Evidence:
    """The evidence in one image.

    Args:
        views: its rows of the shards.
        answer: the true and the predicted label.
        parameters: of the predictions.
    """
    crops = views.take(views.candidates != WHOLE)
    kept, corners = candidates.kept[crops.candidates], candidates.corners[crops.candidates]
    weights = weigh(crops.similarity, kept, parameters.image_scale)
    embeddings = crops.embeddings.astype(np.float64)
    order = np.argsort(-weights, kind="stable")
    accepted, rejected = order[kept[order]], order[~kept[order]]
    true, other = answer
    if other == true and classes > 1:
        scores = class_scores(weights[accepted] @ embeddings[accepted], texts, classes, parameters.normalize)
        scores[true] = -np.inf
        other = int(scores.argmax())
    return Evidence(
        accepted=corners[accepted],
        weights=weights[accepted],
        rejected=corners[rejected],
        hypothetical_weights=weights[rejected],
        sides=[
            side(label, embeddings[accepted], weights[accepted], texts, parameters.normalize)
            for label in dict.fromkeys((true, other))
        ],
        right=answer[0] == answer[1],
    )


def at_hand(dataset: str, model: str) -> bool:
    """Whether texts and views exist; a clone that pulled only metrics has none."""
    return paths.texts(dataset, model).exists() and bool(shard_paths(paths.views(dataset, model)))


def read_evidence(
    model: str,
    predictions: Metadata[PredictionsParameters],
    chosen: pl.DataFrame,
    candidates: Mapping[str, Candidates],
    classes: ClassTable,
) -> dict[str, Evidence]:
    """The evidence in some images.

    Args:
        predictions: the `bifta` object of the predictions.
        candidates: of each of the images.
        chosen: `image_id`, `label` and `bifta`, the label that was predicted.

    Raises:
        UserError: artifacts that do not belong together.
    """
    dataset, image_ids = predictions.dataset, chosen["image_id"].to_list()
    texts = _read_texts(paths.texts(dataset, model), paths.predictions(dataset, model), predictions, classes)
    views = _read_views(dataset, model, predictions, image_ids)
    return {
        row["image_id"]: gather(
            candidates[row["image_id"]],
            views[row["image_id"]],
            texts,
            (row["label"], row[FULL]),
            len(classes.names),
            predictions.parameters,
        )
        for row in chosen.iter_rows(named=True)
    }


def _read_texts(path: Path, predictions: Path, meta: Metadata[PredictionsParameters], classes: ClassTable) -> Texts:
    columns = ["label", "source", "description", "label_similarity", "kept", "embedding"]
    table, own = read_table(path, TEXTS, columns, meta.dataset)
    classes.require(path, own.parameters.classes)
    require_same_model((path, own.encoder()), (predictions, meta.encoder()), "run `dvc repro`")
    method = find(FULL)
    table = table.filter(pa.array(rows_of(table, method)))
    weights = weights_of(path, table, method, len(classes.names), meta.parameters)
    embeddings = embedding_rows(table["embedding"])
    return Texts(table["label"].to_numpy(), table["description"].to_pylist(), weights, embeddings)


def _read_views(
    dataset: str, model: str, predictions: Metadata[PredictionsParameters], image_ids: Sequence[str]
) -> dict[str, Rows]:
    """The rows of some images, from the shards that hold them."""
    mine = paths.predictions(dataset, model)
    shards = find_shards(dataset, model, (mine, predictions))
    precision = predictions.encoder().precision
    views = (paths.views(dataset, model), shards.model.precision)
    require_same("model.precision", views, (mine, precision), "run `dvc repro`")
    wanted = set(image_ids)
    return {
        image_id: shard.of_image(place)
        for shard in shards.read(wanted)
        for place, image_id in enumerate(shard.image_ids)
        if image_id in wanted
    }
