"""align: the method `attrseek`, a row beside `bifta`: images classified by the attributes that an LVLM sees in them.

An image's attributes take the place of its crops. They are weighted by their cosine to the whole image, summed, and
compared with the weighted sum of each class's refined descriptions (arXiv 2406.02915, 2601.20419). They come from
ATTRSEEK's first turn at the superordinate level (arXiv 2402.16315), whose question says nothing about the class.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import torch

from stages.common import alignment, methods, tables
from stages.common import paths as common_paths
from stages.common.artifacts import PREDICTIONS, TEXTS, Metadata, PredictionsParameters
from stages.common.class_texts import vectors_of
from stages.common.columns import embedding_rows
from stages.common.encoders import load_encoder
from stages.common.errors import UserError
from stages.common.labels import Labelled, read_classes, read_labels
from stages.common.metrics import METRICS, metrics_digest, write_metrics
from stages.common.overlap import in_order
from stages.common.params import Score
from stages.common.predictions import open_predictions, read_answers
from stages.common.ranking import Outcome, Tally, predictions_table
from stages.common.ranks import rank
from stages.common.thoughts import without_thoughts
from stages.common.views import find_shards
from stages.finer import answers, paths
from stages.finer.cli import FinerJob
from stages.finer.lists import clean_attributes, says_none
from stages.finer.matching import extract_answer
from stages.finer.promptings import ATTRSEEK

BATCH = 64
_HEADING = re.compile(r":\s*$")


@dataclass(frozen=True)
class Seen:
    """The images for which an LVLM named attributes, and the number of the others."""

    lvlm: str
    image_ids: list[str]
    labels: np.ndarray
    """[B] int32."""
    attributes: list[list[str]]
    without: int


def align_dataset(job: FinerJob, model: str) -> list[str]:
    """Score `attrseek` for every LVLM that was asked; the lines to print.

    Raises:
        UserError: artifacts that are missing or of another model.
    """
    texts_path = common_paths.texts(job.dataset, model)
    texts, meta = tables.read_table(texts_path, TEXTS, dataset=job.dataset)
    classes = read_classes(job.dataset)
    classes.require(texts_path, meta.parameters.classes)
    labelled = read_labels(job.dataset, classes)
    encoder = load_encoder(model, job.params)
    asked = (Path(f"models.{model}"), encoder.meta)
    tables.require_same_model((texts_path, meta.encoder()), asked, "run `dvc repro`")
    embeddings = embedding_rows(texts["embedding"])
    bifta = methods.find(methods.FULL)
    vectors = vectors_of(texts_path, texts, embeddings, bifta, len(classes.names), job.params.score)
    wholes = whole_images(job.dataset, model, (texts_path, meta))
    score = job.params.score.model_dump()
    predictions = open_predictions(job.dataset, model, PredictionsParameters(seed=job.params.seed, **score))
    tables.require_same_model(
        (predictions.path, predictions.meta.encoder()), (texts_path, meta.encoder()), "run `dvc repro`"
    )
    others = correct_runs(predictions, labelled, len(classes.names))
    rows, metrics, lines = [], {}, []
    for lvlm in (*job.finer.endpoints, *job.finer.served):
        seen = read_seen(job, lvlm)
        method = f"attrseek ({lvlm})"
        if not seen.image_ids:
            lines.append(f"no row for {method}: it needs ATTRSEEK's answers at the superordinate level (finer.ask)")
            continue
        require_images(paths.answers(lvlm, job.dataset), seen, labelled)
        phrases = list(dict.fromkeys(text for own in seen.attributes for text in own))
        embedded = encoder.encode_texts(phrases, job.params.refine.batch_size, "attributes").numpy()
        place = {phrase: number for number, phrase in enumerate(phrases)}
        views = [embedded[[place[text] for text in own]] for own in seen.attributes]
        whole = np.stack([wholes[image_id] for image_id in seen.image_ids])
        scores = align(views, whole, vectors, job.params.score)
        table, metrics[method] = outcome(method, seen, scores)
        rows.append(table)
        same = np.isin(labelled.image_ids, seen.image_ids)
        beside = ", ".join(f"{name} {100 * right[same].mean():.2f}" for name, right in others.items())
        lines.append(
            f"{method} on {job.dataset}: top-1 {metrics[method]['top1']:.2f} of {len(seen.image_ids)} images "
            f"({seen.without} without attributes are not scored); of the same images {beside}"
        )
    folder = common_paths.attrseek(job.dataset, model)
    table = pa.concat_tables(rows) if rows else PREDICTIONS.columns.empty_table()
    made_with = PredictionsParameters(scoring=methods.SCORING, files=meta.parameters.files, **score)
    made = tables.make_meta(PREDICTIONS, job.dataset, made_with, encoder.meta)
    tables.write_table(folder / "predictions.parquet", table, made, **{METRICS: metrics_digest(metrics)})
    write_metrics(folder / "metrics.json", metrics)
    return lines


def read_seen(job: FinerJob, lvlm: str) -> Seen:
    """The attributes that an LVLM named for each image, without knowing what it shows."""
    path = paths.answers(lvlm, job.dataset)
    table, _ = answers.read_answers(path, lvlm, job.dataset)
    rows = pl.DataFrame(pl.from_arrow(table)).filter(
        (pl.col("granularity") == "superordinate") & (pl.col("prompting") == ATTRSEEK) & (pl.col("input") == "image")
    )
    lists = [split_attributes(text) if text is not None else [] for text in rows["attributes"]]
    named = [place for place, own in enumerate(lists) if own]
    return Seen(
        lvlm,
        rows["image_id"].gather(named).to_list(),
        rows["label"].gather(named).to_numpy(),
        [lists[place] for place in named],
        len(lists) - len(named),
    )


def require_images(answers_path: Path, seen: Seen, images: Labelled) -> None:
    """Refuse answers about other images than those of the data set, or with other labels.

    Raises:
        UserError: names the first such image.
    """
    table = common_paths.images(images.meta.dataset)
    labels = dict(zip(images.image_ids, images.labels.tolist(), strict=True))
    strange = [image_id for image_id in seen.image_ids if image_id not in labels]
    if strange:
        raise UserError(
            f"{answers_path} has {len(strange)} images that {table} lacks, such as '{strange[0]}'; for the row "
            "attrseek the unified file must be of the same images"
        )
    for image_id, label in zip(seen.image_ids, seen.labels.tolist(), strict=True):
        if labels[image_id] != label:
            raise UserError(
                f"{answers_path} has the label {label} of '{image_id}', {table} has {labels[image_id]}; run `dvc repro "
                "stages/finer/dvc.yaml`"
            )


def split_attributes(text: str) -> list[str]:
    """The attributes in an answer: separated by semicolons or lines, or by commas where there are neither.

    Bullets, numbers, Markdown, "none" and repetitions are dropped, as are headings.
    """
    body = extract_answer(without_thoughts(text))
    lines = [line for line in body.splitlines() if not _HEADING.search(line)]
    pieces = [piece for line in lines for piece in line.split(";") if piece.strip()]
    if len(pieces) == 1 and not says_none(pieces[0]):
        pieces = re.split(r",\s*(?:and\s+)?", pieces[0])
    return clean_attributes(pieces)


def whole_images(dataset: str, model: str, texts: tuple[Path, Metadata]) -> dict[str, np.ndarray]:
    """image_id -> embedding of the whole image, [D] float32.

    Args:
        texts: path and metadata of the texts, whose model the views must be of.

    Raises:
        UserError: no shards, or shards that do not belong to the texts, images or boxes.
    """
    found: dict[str, np.ndarray] = {}
    for shard in find_shards(dataset, model, texts).read():
        whole = shard.embeddings[shard.starts[:-1]].astype(np.float32)
        found.update(zip(shard.image_ids, whole, strict=True))
    return found


def correct_runs(
    predictions: tables.Opened[PredictionsParameters], images: Labelled, classes: int
) -> dict[str, np.ndarray]:
    """Method of the other pipeline -> for each image the share of its runs that are right: [N] float64.

    Raises:
        UserError: as `read_answers`.
    """
    found: dict[str, list[np.ndarray]] = {}
    for part in read_answers(predictions, images, classes):
        for method, predicted in part.predicted.items():
            right = predicted == images.labels[part.span, None]
            found.setdefault(method, []).append(right.mean(axis=1))
    return {method: np.concatenate(parts) for method, parts in found.items()}


def align(views: Sequence[np.ndarray], whole: np.ndarray, classes: np.ndarray, score: Score) -> np.ndarray:
    """score(x, y) = <sum_i w_i A_i, sum_j v_j T_j> with w = softmax(exp(image_scale) * cos(A_i, whole image)).

    Args:
        views: for each of B images the embeddings of its attributes, [P_b, D] float32 of unit norm.
        whole: [B, D] float32, of the images.
        classes: [C, D] float32.

    Returns:
        [B, C] float32.
    """

    def batch(start: int) -> np.ndarray:
        part = views[start : start + BATCH]
        padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(own) for own in part], batch_first=True)
        pool = torch.arange(padded.shape[1])[None] < torch.tensor([len(own) for own in part])[:, None]
        image = torch.nn.functional.normalize(torch.from_numpy(whole[start : start + BATCH]), dim=-1)
        similarity = torch.einsum("bpd,bd->bp", padded, image)
        weights = alignment.pool_weights(pool, similarity, score.image_scale, None)
        vectors = alignment.image_vectors(weights, padded, score.normalize)[:, 0]
        scores: np.ndarray = (vectors @ torch.from_numpy(classes).T).numpy()
        return scores

    return np.concatenate(list(in_order(batch, range(0, len(views), BATCH), torch.get_num_threads())))


def outcome(method: str, seen: Seen, scores: np.ndarray) -> tuple[pa.Table, dict[str, float | int]]:
    """Predictions and metrics as those of the other methods, by the same rules.

    Args:
        scores: [B, C] float32.
    """
    ranks = rank(torch.from_numpy(scores)[:, None], torch.from_numpy(seen.labels.astype(np.int64)))
    found = Outcome(*(tensor.numpy() for tensor in ranks))
    tally = Tally(runs=1, classes=scores.shape[1])
    tally.add(found, seen.labels)
    return predictions_table(seen.image_ids, seen.labels, [method], [found]), tally.metrics()
