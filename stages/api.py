"""The functions of the pipeline for use from Python: `import stages` (docs/python.md shows how).

Arrays are NumPy's, in and out. The defaults are the papers' values (BiFTA, arXiv 2601.20419; WCA, arXiv 2406.02915).
The stages call the same functions underneath, so that both compute the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from PIL import Image, ImageFile
from pydantic import ValidationError

from stages.common import alignment
from stages.common.artifacts import UNTRAINED
from stages.common.encoders import Encoder, has_unit_norm, load_model, require_unit
from stages.common.errors import UserError
from stages.common.explain import explain
from stages.common.images import UNREADABLE, open_rgb, orientation, reason, to_rgb
from stages.common.params import Crop, Model, Preprocess, Refine, Score
from stages.common.section import Section
from stages.common.templates import fill
from stages.common.views import WHOLE
from stages.common.views import Rows as Views
from stages.crop.boxes import draw_candidates, surviving
from stages.embed.encode import embed_pictures, fetch
from stages.embed.shards import ImageViews
from stages.refine.select import Selection, select
from stages.refine.sources import clean

CROP, REFINE, SCORE = Crop(), Refine(), Score()
"""The papers' values."""

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Settings = TypeVar("Settings", bound=Section)


@dataclass(frozen=True)
class Texts:
    """M descriptions of one class, embedded."""

    embeddings: np.ndarray
    """[M, D] float32 of unit norm."""
    label_similarity: np.ndarray
    """[M] float32, cosine to the label prompt."""
    descriptions: Sequence[str] = ()
    """M texts, as they were embedded; `align` does not need them."""
    truncated: np.ndarray | None = None
    """[M] bool: longer than the model's context, which sees the beginning only."""

    def take(self, which: np.ndarray) -> Texts:
        """Those where a [M] bool is true."""
        return Texts(
            self.embeddings[which],
            self.label_similarity[which],
            [self.descriptions[row] for row in np.flatnonzero(which).tolist()] if self.descriptions else (),
            None if self.truncated is None else self.truncated[which],
        )


def load_encoder(
    name: str,
    pretrained: str | Path | None = None,
    *,
    device: Device = "auto",
    precision: Precision = "auto",
    activation: Literal["gelu", "quick_gelu"] | None = None,
    preprocess: Mapping[str, Any] | None = None,
) -> Encoder:
    """Load a CLIP-like model of open_clip.

    Args:
        name: open_clip's name of the model, as ViT-B-32, or `local-dir:<folder>`, or `hf-hub:<repository>`.
        pretrained: a tag of open_clip, or the path of a checkpoint; None: random weights, with a warning.
        device: auto is the GPU where there is one.
        precision: of the image tower; auto is bfloat16 where the hardware has it. Texts are embedded in float32.
        activation: what a checkpoint file was trained with; only such files need it.
        preprocess: `mean`, `std`, `interpolation` and `resize_mode`, where they differ from the model's own.

    Raises:
        ValueError: an argument that is not allowed.
        UserError: no such model, tag or file, weights that do not fit, or a GPU that is not there.
    """
    for argument, value, allowed in (("device", device, Device), ("precision", precision, Precision)):
        if value not in get_args(allowed):
            raise ValueError(f"{argument} must be one of {', '.join(get_args(allowed))}, not {value!r}")
    entry = _checked(
        Model,
        name=name,
        pretrained=None if pretrained is None else str(pretrained),
        activation=activation,
        preprocess=None if preprocess is None else _checked(Preprocess, **preprocess),
    )
    encoder = load_model("encoder", entry, device, precision)
    if encoder.meta.pretrained == UNTRAINED:
        warnings.warn(f"{name} has random weights; pass `pretrained`, a tag of open_clip or a file", stacklevel=2)
    return encoder


def open_image(path: str | Path) -> Image.Image:
    """Read an image file as every stage does: turned as its EXIF orientation says, in 8-bit RGB.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return open_rgb(Path(path))
    except UNREADABLE as error:
        raise UserError(f"image '{path}' cannot be read ({reason(error)})") from None


def draw_crops(
    width: int,
    height: int,
    *,
    candidates: int = CROP.candidates,
    min_scale: float = CROP.min_scale,
    max_scale: float = CROP.max_scale,
    layout: Literal["random", "grid"] = CROP.layout,
    seed: int = 0,
    image_id: str = "",
) -> np.ndarray:
    """Candidate crops of an image of `width` x `height` pixels (BiFTA: 300 squares, 0.5 to 0.9 of the shorter side).

    Args:
        min_scale, max_scale: the smallest and largest side, as a share of the image's shorter side.
        layout: random squares, or evenly spaced ones for comparison.
        seed, image_id: what the crops are drawn from; with those of a data set they are the same as the pipeline's.

    Returns:
        [candidates, 4] int32 pixels: left, top, right, bottom; right and bottom exclusive.

    Raises:
        ValueError: an argument that is not allowed.
    """
    width, height = index(width), index(height)
    if min(width, height) < 1:
        raise ValueError(f"an image has at least one pixel, not {width} x {height}")
    crop = _checked(Crop, candidates=candidates, min_scale=min_scale, max_scale=max_scale, layout=layout)
    return draw_candidates(width, height, crop, seed, image_id)


def filter_crops(
    boxes: np.ndarray, iou_threshold: float = SCORE.iou_threshold, max_views: int = CROP.max_views
) -> np.ndarray:
    """View refinement: go through the crops in order and keep each whose IoU with all kept ones is at most a threshold.

    Args:
        boxes: [N, 4] whole pixels: left, top, right, bottom.
        iou_threshold: 0 to 1.
        max_views: stop after this many are kept.

    Returns:
        [K, 4]: the boxes that are kept, in order.

    Raises:
        ValueError: `boxes` of another shape or type, or an argument that is not allowed.
    """
    boxes = _checked_boxes(boxes)
    threshold = _checked(Score, iou_threshold=iou_threshold).iou_threshold
    return boxes[surviving(boxes, [threshold], _checked(Crop, max_views=max_views).max_views)[:, 0]]


def select_descriptions(
    texts: Sequence[str],
    embeddings: np.ndarray,
    label_similarity: np.ndarray,
    cosine_threshold: float = REFINE.cosine_threshold,
    top_k: int = REFINE.top_k,
    truncated: np.ndarray | None = None,
) -> Selection:
    """Description refinement of one class: drop texts that say the same, then keep those closest to the label prompt.

    Args:
        texts: M descriptions; of two that say the same the earlier one is kept.
        embeddings: [M, D] float of unit norm.
        label_similarity: [M] float, cosine to the label prompt.
        cosine_threshold: drop a text whose cosine with a kept one is at least this.
        top_k: keep at most this many.
        truncated: [M] bool: the model sees only the beginning. Two such texts are never called similar.

    Returns:
        For each text whether it is kept, why it was dropped, and which kept text it repeats.

    Raises:
        ValueError: arrays whose shapes do not fit, embeddings that are not of unit norm, or an argument that is not
            allowed.
    """
    if isinstance(texts, str):
        raise ValueError("texts must be a list of descriptions, not one string")
    refine = _checked(Refine, cosine_threshold=cosine_threshold, top_k=top_k)
    rows = _unit_rows("embeddings", embeddings, len(texts))
    similarity = _column("label_similarity", label_similarity, len(texts))
    if truncated is not None:
        truncated = _column("truncated", truncated, len(texts)).astype(bool)
    return select(texts, rows, similarity, refine.cosine_threshold, refine.top_k, truncated)


def embed_descriptions(
    descriptions: Mapping[str, Sequence[str]], encoder: Encoder, label_prompt: str = REFINE.label_prompt
) -> dict[str, Texts]:
    """Embed the descriptions of classes, cleaned as `refine` does (white space, marks of tokenizers).

    Args:
        descriptions: `{class name: [sentence, ...]}`, as description files have it.
        label_prompt: what descriptions are ranked and weighted by, with `{name}`.

    Raises:
        ValueError: a class without descriptions, or a prompt without `{name}`.
        UserError: an embedding is not finite.
    """
    prompt = _checked(Refine, label_prompt=label_prompt).label_prompt
    prompts = {name: fill(prompt, name=name) for name in descriptions}
    cleaned = {name: [clean(text) for text in texts] for name, texts in descriptions.items()}
    for name, texts in descriptions.items():
        if isinstance(texts, str) or not texts:
            raise ValueError(f"descriptions['{name}'] must be a list of at least one text")
    unique = list(dict.fromkeys([*prompts.values(), *(text for texts in cleaned.values() for text in texts)]))
    rows = encoder.encode_texts(unique, REFINE.batch_size).numpy()
    lengths = np.array(encoder.token_counts(unique))
    place = {text: row for row, text in enumerate(unique)}
    made = {}
    for name, texts in cleaned.items():
        own = [place[text] for text in texts]
        similarity = np.einsum("nd,d->n", rows[own], rows[place[prompts[name]]])
        made[name] = Texts(rows[own], similarity, texts, lengths[own] > encoder.context_length)
    return made


def embed_views(image: Image.Image | np.ndarray, boxes: np.ndarray, encoder: Encoder) -> Views:
    """Embed an image and its crops.

    Args:
        image: what `open_image` gives, another Pillow image, or [H, W, 3] uint8 pixels.
        boxes: [V, 4] whole pixels inside the image: left, top, right, bottom; right and bottom exclusive.

    Returns:
        1 + V views: the whole image, with the candidate number -1, then the crops, numbered from 0. Embeddings are
        float16 of unit norm before rounding, similarities float32 cosines to the whole image.

    Raises:
        ValueError: pixels or boxes of another shape or type, boxes outside the image, or a Pillow image whose EXIF
            orientation is not applied.
        UserError: an embedding is not finite.
    """
    picture = _picture(image)
    boxes = _checked_boxes(boxes)
    inside = (boxes[:, :2] >= 0).all(axis=1) & (boxes[:, 2:] <= picture.size).all(axis=1)
    if not inside.all():
        outside = int(np.argmin(inside))
        size = " x ".join(map(str, picture.size))
        raise ValueError(f"box {outside} {boxes[outside].tolist()} is not inside the image of {size} pixels")
    numbers = np.arange(len(boxes), dtype=np.int32)
    one = ImageViews("", "", "", numbers, boxes)
    embedded = fetch(list(embed_pictures([one], lambda _: picture, encoder, "auto")))[0]
    unit, precision = has_unit_norm(embedded.embeddings), encoder.meta.precision
    require_unit(unit, lambda row: f"view {row} of the image", encoder.where, precision)
    candidates = np.concatenate([[WHOLE], numbers]).astype(np.int32)
    return Views(candidates, embedded.similarity.numpy(), embedded.embeddings.numpy())


def align(
    views: Views,
    texts: Sequence[Texts],
    *,
    image_scale: float = SCORE.image_scale,
    text_scale: float = SCORE.text_scale,
    normalize: bool = SCORE.normalize,
) -> np.ndarray:
    """Weighted cross-alignment of one image with C classes: score(x, y) = sum_ij w_i v_j cos(I_i, T_j) (WCA).

    Every crop counts once, as with `views_per_run: all`. The whole image only weights the crops; without crops it is
    what the classes are compared with.

    Args:
        views: of the image, from `embed_views` or a shard.
        texts: of each class, from `embed_descriptions` or `texts.parquet`.
        image_scale, text_scale: logarithms of the factors in the softmax of the weights.
        normalize: normalise both sums, as the published code does; False is the paper's equation.

    Returns:
        [C] float32 scores, in the order of `texts`.

    Raises:
        ValueError: no views, no classes, a class without texts, or arrays whose shapes do not fit.
    """
    score = _checked(Score, image_scale=image_scale, text_scale=text_scale, normalize=normalize)
    candidates = np.asarray(views.candidates)
    rows = _unit_rows("views.embeddings", views.embeddings, len(candidates))
    similarity = _column("views.similarity", views.similarity, len(candidates))
    if not len(candidates):
        raise ValueError("views has no rows")
    vectors = _class_vectors(texts, rows.shape[1], score)
    pool = candidates != WHOLE
    pool = torch.from_numpy(pool if pool.any() else ~pool)[None]
    weights = alignment.pool_weights(pool, torch.from_numpy(similarity)[None], score.image_scale, None)
    image = alignment.image_vectors(weights, torch.from_numpy(rows)[None], score.normalize)[0, 0]
    scores: np.ndarray = (image @ torch.from_numpy(vectors).T).numpy()
    return scores


def _class_vectors(texts: Sequence[Texts], width: int, score: Score) -> np.ndarray:
    """sum_j v_j T_j of each class: [C, width] float32."""
    if isinstance(texts, Texts | Mapping) or not texts:
        raise ValueError("texts must be a list with the Texts of each class")
    counts = [len(one.embeddings) for one in texts]
    if 0 in counts:
        raise ValueError(f"texts[{counts.index(0)}] has no rows")
    labels = np.repeat(np.arange(len(texts)), counts)
    embeddings, similarity = [], []
    for label, (one, count) in enumerate(zip(texts, counts, strict=True)):
        rows = _unit_rows(f"texts[{label}].embeddings", one.embeddings, count)
        if rows.shape[1] != width:
            raise ValueError(f"texts[{label}].embeddings are {rows.shape[1]} wide, the views' are {width}")
        embeddings.append(rows)
        similarity.append(_column(f"texts[{label}].label_similarity", one.label_similarity, count))
    weights = alignment.text_weights(np.concatenate(similarity), labels, len(texts), score.text_scale)
    vectors = alignment.class_vectors(np.concatenate(embeddings), weights, labels, len(texts))
    return (alignment.normalized(vectors) if score.normalize else vectors).astype(np.float32)


def _checked(section: type[Settings], **values: Any) -> Settings:
    """A section of params.yaml made of arguments.

    Raises:
        ValueError: one line that names the argument.
    """
    try:
        return section(**values)
    except ValidationError as error:
        raise ValueError(explain(error, section)) from None


def _checked_boxes(boxes: np.ndarray) -> np.ndarray:
    """[N, 4] int32.

    Raises:
        ValueError: another shape or type, or a box without pixels.
    """
    boxes = np.asarray(boxes)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "iu":
        shape = list(boxes.shape)
        raise ValueError(f"boxes must be [N, 4] integers (left, top, right, bottom), not {shape} of {boxes.dtype}")
    empty = (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
    if empty.any():
        first = int(np.argmax(empty))
        raise ValueError(f"box {first} {boxes[first].tolist()} has no pixels (left, top, right, bottom)")
    return boxes.astype(np.int32)


def _picture(image: Image.Image | np.ndarray) -> Image.Image:
    """RGB pixels."""
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"image must be [H, W, 3] of uint8, not {list(image.shape)} of {image.dtype}")
        return Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise ValueError(f"image must be a Pillow image or an array, not {type(image).__name__}")
    if isinstance(image, ImageFile.ImageFile) and orientation(image) != 1:
        raise ValueError("the image has an EXIF orientation that is not applied; open it with stages.open_image")
    return to_rgb(image)


def _unit_rows(name: str, rows: np.ndarray, count: int) -> np.ndarray:
    """[count, D] float32 of unit norm, a copy.

    Raises:
        ValueError: another shape, or rows that are not of unit norm.
    """
    rows = np.array(rows, dtype=np.float32)
    if rows.ndim != 2 or len(rows) != count:
        raise ValueError(f"{name} must be [{count}, D], not {list(rows.shape)}")
    norms = np.linalg.norm(rows, axis=1)
    unit = np.abs(norms - 1) < 0.01  # float16 rounds; False for NaN
    if not unit.all():
        first = int(np.argmin(unit))
        raise ValueError(f"{name} must have rows of norm 1; that of row {first} is {norms[first]:g}")
    return rows


def _column(name: str, values: np.ndarray, count: int) -> np.ndarray:
    """[count] float32, a copy.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    values = np.array(values, dtype=np.float32)
    if values.shape != (count,):
        raise ValueError(f"{name} must be [{count}], not {list(values.shape)}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite; row {int(np.argmin(np.isfinite(values)))} is not")
    return values
