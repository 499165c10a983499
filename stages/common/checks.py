"""What the rows of each artifact must be like, no matter what wrote them: one check for each, run by the one reader.

A check gets a table, or a piece of one, with all columns or some of them. It returns what is wrong in words, and an
empty string if nothing is. What two artifacts must have in common is checked where they meet.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.common.columns import EDGES, WHOLE, box_rows, embedding_rows, kept_under, list_rows
from stages.common.params import LABEL, TEMPLATE, WAFFLE

if TYPE_CHECKING:
    from stages.common.artifacts import Metadata

TOLERANCE = 4e-3
"""Of norms and cosines of embeddings in float16. Rounding changes them by at most 1e-3."""
TEXT_TOLERANCE = 1e-4
"""Of norms and cosines of embeddings in float32."""
ROWS_AT_ONCE = 1 << 13
VALUES_AT_ONCE = 1 << 15
"""Torch shares larger arrays among threads."""


def _has(table: pa.Table, *names: str) -> bool:
    return set(names) <= set(table.column_names)


def _array(table: pa.Table, name: str) -> np.ndarray:
    values: np.ndarray = table[name].to_numpy()
    return values


def _nulls(table: pa.Table, *allowed: str) -> str:
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.null_count and name not in allowed:
            return f"{column.null_count} rows have no '{name}'"
    return ""


def _shown(table: pa.Table, name: str, bad: np.ndarray) -> str:
    """`'x' and 2 others`: the rows where a [N] bool is true, by the column that names them if it is there."""
    row, others = int(np.argmax(bad)), int(bad.sum()) - 1
    named = f"'{table[name][row].as_py()}'" if _has(table, name) else f"row {row}"
    return named + (f" and {others} others" if others else "")


def _ascending(table: pa.Table, name: str) -> str:
    """Each value once and in order, by the bytes of the text as Python's `sorted`."""
    if not _has(table, name) or len(table) < 2:
        return ""
    values = table[name].combine_chunks()
    wrong = pc.less_equal(values[1:], values[:-1]).to_numpy(zero_copy_only=False)
    return f"'{values[int(np.argmax(wrong)) + 1]}' is listed twice or out of order" if wrong.any() else ""


def check_images(table: pa.Table, meta: Metadata[Any]) -> str:
    """One row an image, by image_id. `label` may be null; sizes are positive."""
    problem = _nulls(table, "label") or _ascending(table, "image_id") or ("" if len(table) else "it lists no image")
    for name, least in (("label", 0), ("width", 1), ("height", 1)):
        if not problem and _has(table, name):
            low = pc.fill_null(pc.less(table[name], least), False).to_numpy()
            if low.any():
                problem = f"the {name} of {_shown(table, 'image_id', low)} is below {least}"
    return problem


def check_classes(table: pa.Table, meta: Metadata[Any]) -> str:
    """One row a class, by label from 0."""
    problem = _nulls(table, "superordinate", "coarse", "fine")
    if not problem and not len(table):
        problem = "it has no class"
    if not problem and _has(table, "label"):
        wrong = _array(table, "label") != np.arange(len(table))
        if wrong.any():
            problem = f"the labels are not 0 to {len(table) - 1} in order, as that of {_shown(table, 'name', wrong)}"
    return problem


def check_skipped(table: pa.Table, meta: Metadata[Any]) -> str:
    """One row an image, by image_id."""
    return _nulls(table) or _ascending(table, "image_id")


def check_boxes(table: pa.Table, meta: Metadata[Any]) -> str:
    """All candidates of each image in order, image after image; the first is kept under every threshold.

    A piece must be of whole images.
    """
    crop = meta.parameters
    problem = _nulls(table)
    if problem or len(table) % crop.candidates or not len(table):
        return problem or f"it does not have {crop.candidates} candidates for each image"
    if _has(table, "image_id"):
        numbers = table["image_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        if (numbers.reshape(-1, crop.candidates) != np.arange(len(table) // crop.candidates)[:, None]).any():
            return "the candidates of an image are not together"
    if _has(table, "candidate"):
        wrong = _array(table, "candidate").reshape(-1, crop.candidates) != np.arange(crop.candidates)
        if wrong.any():
            return f"the candidates of {_shown(table, 'image_id', wrong.ravel())} are not numbered in order"
    if _has(table, *EDGES):
        left, top, right, bottom = box_rows(table).T
        wrong = (left < 0) | (top < 0) | (right <= left) | (bottom <= top)
        if wrong.any():
            return f"a box of {_shown(table, 'image_id', wrong)} is empty, or outside the image"
    return _check_kept(table, crop) if _has(table, "kept") else ""


def _check_kept(table: pa.Table, crop: Any) -> str:
    kept = kept_under(table["kept"], crop.iou_thresholds)
    if kept is None:
        return f"'kept' has other values than the thresholds {crop.iou_thresholds}, each at most once"
    by_image = kept.reshape(-1, crop.candidates, kept.shape[1])
    if not by_image[:, 0].all():
        return "the first candidate of an image is not kept, although none is before it"
    if by_image.sum(axis=1).max() > crop.max_views:
        return f"an image keeps more than {crop.max_views} candidates"
    return ""


def check_texts(table: pa.Table, meta: Metadata[Any]) -> str:
    """The label prompts of all classes first, embeddings of unit norm, refined as the parameters say."""
    problem = _nulls(table, "kept", "dropped_because", "duplicate_of")
    if not problem and _has(table, "label", "source"):
        problem = _check_sources(table, meta.parameters)
    if not problem and _has(table, "embedding"):
        problem = _check_text_embeddings(table)
    if not problem and _has(table, "label", "source", "kept", "label_similarity"):
        problem = _check_refinement(table, meta.parameters)
    return problem


def _check_sources(table: pa.Table, parameters: Any) -> str:
    labels, prompts = _array(table, "label"), pc.equal(table["source"], LABEL).to_numpy()
    classes = int(prompts.sum())
    if not classes or not prompts[:classes].all() or (labels[:classes] != np.arange(classes)).any():
        return "it does not begin with the label prompt of each class, in order"
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        return f"the label of {_shown(table, 'description', outside)} is none of the {classes} classes"
    known = [LABEL, TEMPLATE, WAFFLE, *parameters.sources]
    strange = ~pc.is_in(table["source"], value_set=pa.array(known)).to_numpy()
    if strange.any():
        return f"it has texts of '{table['source'][int(np.argmax(strange))]}', which its metadata does not name"
    for source in parameters.sources:
        own = np.bincount(labels[pc.equal(table["source"], source).to_numpy()], minlength=classes)
        if not own.all():
            return f"it has no texts of '{source}' for label {int(np.argmin(own))}"
    return ""


def _check_text_embeddings(table: pa.Table) -> str:
    rows = embedding_rows(table["embedding"])
    bad = ~(np.abs(np.sqrt(np.einsum("nd,nd->n", rows, rows)) - 1) < TEXT_TOLERANCE)  # true for NaN as well
    if bad.any():
        return f"the embedding of {_shown(table, 'description', bad)} is not finite and of unit norm"
    if not _has(table, "label", "source", "label_similarity"):
        return ""
    cosines = label_similarities(rows, _array(table, "label"))
    bad = ~(np.abs(cosines - _array(table, "label_similarity")) < TEXT_TOLERANCE)
    if bad.any():
        return f"the label_similarity of {_shown(table, 'description', bad)} is not its cosine to the label prompt"
    return ""


def label_similarities(embeddings: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cosine of each text to its class's label prompt; the prompts are the first rows, by label: [N] float32."""
    similarity = np.empty(len(labels), dtype=np.float32)
    for start in range(0, len(labels), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        similarity[part] = np.einsum("nd,nd->n", embeddings[part], embeddings[labels[part]])
    return similarity


def _check_refinement(table: pa.Table, parameters: Any) -> str:
    """`kept` is said of the refined sources' texts alone, and they are the closest to the label prompt."""
    judged = table["kept"].is_valid().to_numpy()
    refined = pc.is_in(table["source"], value_set=pa.array(parameters.refined, pa.string())).to_numpy()
    if (judged != refined).any():
        return "'kept' is null for texts that were refined, or is not for others"
    kept, labels = pc.fill_null(table["kept"], False).to_numpy(), _array(table, "label")
    if np.bincount(labels[kept], minlength=1).max() > parameters.top_k:
        return f"a class keeps more than {parameters.top_k} texts"
    if not _has(table, "dropped_because", "duplicate_of"):
        return ""
    dropped, repeats = table["dropped_because"].is_valid().to_numpy(), table["duplicate_of"].is_valid().to_numpy()
    originals = _array(table, "duplicate_of")[repeats].astype(np.int64)
    if (dropped != (judged & ~kept)).any() or (repeats & ~dropped).any():
        return "the texts with a reason to be dropped are not those that were"
    if len(originals) and (originals.min() < 0 or originals.max() >= len(labels)):
        return "'duplicate_of' is not the number of a row"
    if (labels[originals] != labels[repeats]).any() or repeats[originals].any():
        return "'duplicate_of' names a text of another class, or one that is a duplicate itself"
    return _check_rank(labels, kept, dropped & ~repeats, _array(table, "label_similarity"))


def _check_rank(labels: np.ndarray, kept: np.ndarray, below: np.ndarray, similarity: np.ndarray) -> str:
    """Those dropped for their rank are not closer to the label prompt than one that was kept."""
    lowest, highest = np.full(labels.max() + 1, np.inf), np.full(labels.max() + 1, -np.inf)
    np.minimum.at(lowest, labels[kept], similarity[kept])
    np.maximum.at(highest, labels[below], similarity[below])
    worse = highest > lowest
    return f"label {int(np.argmax(worse))} keeps a text of lower rank than one that was dropped" if worse.any() else ""


def check_views(table: pa.Table, meta: Metadata[Any]) -> str:
    """The whole image of each image, then its crops in order; unit norm; cosines to the whole image."""
    problem = _nulls(table)
    if problem or not _has(table, "image_id", "candidate"):
        return problem
    candidates = _array(table, "candidate")
    starts = np.flatnonzero(candidates == WHOLE)
    rises = np.diff(candidates, prepend=WHOLE - 1) > 0
    rises[starts] = True
    if not len(starts) or starts[0] != 0 or not rises.all():
        return "an image lacks the view of the whole image, or its crops are not in order"
    starts = np.append(starts, len(candidates))
    numbers = table["image_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    if (numbers != np.repeat(np.arange(len(starts) - 1), np.diff(starts))).any():
        return "the views of an image are not together"
    return _check_view_embeddings(table, starts) if _has(table, "similarity", "embedding") else ""


def _check_view_embeddings(table: pa.Table, starts: np.ndarray) -> str:
    """In pieces that fit the cache, and that are too small for Torch to share among threads. BLAS would share them too.

    Threads of this check would be in the way of those that score.
    """
    import torch  # converts float16 17 times as fast as NumPy. All readers of views need it anyway

    rows = torch.from_dlpack(table["embedding"].combine_chunks().flatten()).view(len(table), -1)
    squares, cosines = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
    size = max(1, VALUES_AT_ONCE // rows.shape[1])
    for first, end in pairwise(starts.tolist()):
        whole = rows[first].float().numpy()
        for start in range(first, end, size):
            part = slice(start, min(start + size, end))
            own = rows[part].float().numpy()
            cosines[part] = np.einsum("nd,d->n", own, whole)
            squares[part] = np.einsum("nd,nd->n", own, own)
    bad = ~(np.abs(np.sqrt(squares) - 1) < TOLERANCE)  # true for NaN as well
    if bad.any():
        return f"the embedding of {_shown(table, 'image_id', bad)} is not finite and of unit norm"
    bad = ~(np.abs(cosines - _array(table, "similarity")) < TOLERANCE)
    if bad.any():
        return f"the similarity of {_shown(table, 'image_id', bad)} is not its cosine to the whole image"
    return ""


def _check_labels(table: pa.Table) -> str:
    if not _has(table, "label") or table["label"].null_count == len(table):
        return ""
    problem = _nulls(table.select(["label"]))
    return problem or ("" if pc.min(table["label"]).as_py() >= 0 else "it has rows whose 'label' is negative")


def check_predictions(table: pa.Table, meta: Metadata[Any]) -> str:
    """Labels, runs and margins are not negative; scores are finite. Either all images have a label or none has."""
    problem = _nulls(table, "label") or _check_labels(table)
    for name in ("run", "predicted", "margin"):
        if not problem and _has(table, name) and not (_array(table, name) >= 0).all():
            problem = f"it has rows whose '{name}' is negative"
    for name in ("score", "margin"):
        if not problem and _has(table, name) and not np.isfinite(_array(table, name)).all():
            problem = f"it has rows whose '{name}' is not finite"
    return problem


def check_top5(table: pa.Table, meta: Metadata[Any]) -> str:
    """As many classes as scores in each row, best first, each once; the lower label first where scores are equal."""
    problem = _nulls(table, "label") or _check_labels(table)
    if not problem and _has(table, "agreement"):
        agreement = _array(table, "agreement")
        if not ((agreement >= 0) & (agreement <= 1)).all():
            problem = "it has rows whose 'agreement' is not between 0 and 1"
    return problem or (_check_order(table) if _has(table, "classes", "scores") else "")


def _check_order(table: pa.Table) -> str:
    lists = [table[name].combine_chunks() for name in ("classes", "scores")]
    counts = {count for own in lists for count in pc.unique(pc.list_value_length(own)).to_pylist()}
    if not len(table):
        return ""
    if counts - {1, 2, 3, 4, 5} or len(counts) != 1 or any(own.flatten().null_count for own in lists):
        return "its rows do not have one to five classes with as many scores each"
    classes, scores = list_rows(table["classes"]), list_rows(table["scores"])
    if classes.min() < 0 or not np.isfinite(scores).all():
        return "it has rows with a class that is negative, or a score that is not finite"
    first, second = slice(None, -1), slice(1, None)
    falls = scores[:, first] > scores[:, second]
    ties = (scores[:, first] == scores[:, second]) & (classes[:, first] < classes[:, second])
    wrong = ~(falls | ties).all(axis=1)
    again = (np.diff(np.sort(classes, axis=1), axis=1) == 0).any(axis=1)
    wrong |= again
    return f"the classes of {_shown(table, 'image_id', wrong)} are not in order" if wrong.any() else ""
