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
from stages.common.artifacts import CLASSES, PREDICTIONS, TEXTS, Metadata, PredictionsParameters
from stages.common.encoders import load_encoder
from stages.common.errors import UserError
from stages.common.params import Score
from stages.common.ranking import Outcome, Tally, predictions_table, rank, write_metrics
from stages.common.thoughts import without_thoughts
from stages.common.views import find_shards
from stages.finer import paths
from stages.finer.answers import read_answers
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
    texts, meta = tables.read_table(texts_path, TEXTS)
    classes = tables.read_table(common_paths.classes(job.dataset), CLASSES, ["label"])[0].num_rows
    encoder = load_encoder(model, job.params)
    asked = (Path(f"models.{model}"), encoder.meta)
    tables.require_same_model((texts_path, meta.encoder()), asked, "run `dvc repro`")
    embeddings = tables.finite_rows(texts, texts_path, "description")
    bifta = methods.find(methods.FULL)
    vectors = methods.vectors_of(texts_path, texts, embeddings, bifta, classes, job.params.score)
    wholes = whole_images(job.dataset, model, (texts_path, meta))
    predictions = common_paths.predictions(job.dataset, model)
    tables.read_meta(predictions, PREDICTIONS)
    rows, metrics, lines = [], {}, []
    for lvlm in (*job.finer.endpoints, *job.finer.served):
        seen = read_seen(job, lvlm)
        method = f"attrseek ({lvlm})"
        if not seen.image_ids:
            lines.append(f"no row for {method}: it needs ATTRSEEK's answers at the superordinate level (finer.ask)")
            continue
        phrases = list(dict.fromkeys(text for own in seen.attributes for text in own))
        embedded = encoder.encode_texts(phrases, job.params.refine.batch_size, "attributes").numpy()
        place = {phrase: number for number, phrase in enumerate(phrases)}
        views = [embedded[[place[text] for text in own]] for own in seen.attributes]
        strange = [image_id for image_id in seen.image_ids if image_id not in wholes]
        if strange:
            raise UserError(
                f"{paths.answers(lvlm, job.dataset)} has {len(strange)} images that {common_paths.images(job.dataset)} "
                f"lacks, such as '{strange[0]}'; for the row attrseek the unified file must be of the same images"
            )
        whole = np.stack([wholes[image_id] for image_id in seen.image_ids])
        scores = align(views, whole, vectors, job.params.score)
        table, metrics[method] = outcome(method, seen, scores)
        rows.append(table)
        others = ", ".join(f"{name} {top1:.2f}" for name, top1 in others_on(predictions, seen.image_ids))
        lines.append(
            f"{method} on {job.dataset}: top-1 {metrics[method]['top1']:.2f} of {len(seen.image_ids)} images "
            f"({seen.without} without attributes are not scored); of the same images {others}"
        )
    folder = common_paths.attrseek(job.dataset, model)
    table = pa.concat_tables(rows) if rows else PREDICTIONS.columns.empty_table()
    score = job.params.score.model_dump()
    made = tables.make_meta(PREDICTIONS, job.dataset, PredictionsParameters(**score), encoder.meta)
    tables.write_table(folder / "predictions.parquet", table, made)
    write_metrics(folder / "metrics.json", metrics)
    return lines


def read_seen(job: FinerJob, lvlm: str) -> Seen:
    """The attributes that an LVLM named for each image, without knowing what it shows."""
    path = paths.answers(lvlm, job.dataset)
    table, _ = read_answers(path, lvlm, job.dataset)
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


def others_on(predictions: Path, image_ids: Sequence[str]) -> list[tuple[str, float]]:
    """Top-1 in percent of every method of the other pipeline on these images, mean over runs."""
    right = (
        pl.scan_parquet(predictions)
        .filter(pl.col("image_id").is_in(list(image_ids)))
        .group_by("method", maintain_order=True)
        .agg(top1=100 * (pl.col("predicted") == pl.col("label")).mean())
        .collect()
    )
    return list(zip(right["method"], right["top1"], strict=True))


def align(views: Sequence[np.ndarray], whole: np.ndarray, classes: np.ndarray, score: Score) -> np.ndarray:
    """score(x, y) = <sum_i w_i A_i, sum_j v_j T_j> with w = softmax(exp(image_scale) * cos(A_i, whole image)).

    Args:
        views: for each of B images the embeddings of its attributes, [P_b, D] float32 of unit norm.
        whole: [B, D] float32, of the images.
        classes: [C, D] float32.

    Returns:
        [B, C] float32.
    """
    scores = []
    for start in range(0, len(views), BATCH):
        part = views[start : start + BATCH]
        padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(own) for own in part], batch_first=True)
        pool = torch.arange(padded.shape[1])[None] < torch.tensor([len(own) for own in part])[:, None]
        image = torch.nn.functional.normalize(torch.from_numpy(whole[start : start + BATCH]), dim=-1)
        similarity = torch.einsum("bpd,bd->bp", padded, image)
        weights = alignment.pool_weights(pool, similarity, score.image_scale, None)
        vectors = alignment.image_vectors(weights, padded, score.normalize)[:, 0]
        scores.append((vectors @ torch.from_numpy(classes).T).numpy())
    return np.concatenate(scores)


def outcome(method: str, seen: Seen, scores: np.ndarray) -> tuple[pa.Table, dict[str, float | int]]:
    """Predictions and metrics as those of the other methods, by the same rules.

    Args:
        scores: [B, C] float32.
    """
    ranks = rank(torch.from_numpy(scores)[:, None], torch.from_numpy(seen.labels.astype(np.int64)))
    found = Outcome(*(tensor.numpy() for tensor in ranks))
    tally = Tally(runs=1)
    tally.add(found, seen.labels)
    return predictions_table(seen.image_ids, seen.labels, [method], [found]), tally.metrics()
