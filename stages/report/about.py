"""What made a report, for a reader who does not have the project: encoder, data, seed and every setting."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from stages.common import paths
from stages.common.artifacts import (
    BOXES,
    TEXTS,
    UNTRAINED,
    BoxesParameters,
    EncoderMeta,
    ImagesParameters,
    PredictionsParameters,
    TextsParameters,
)
from stages.common.labels import ClassTable, Labelled
from stages.common.params import Crop, Refine, Score
from stages.common.section import Section
from stages.common.tables import Opened, read_meta, require_same_model

MEANINGS = {
    "seed": "everything random is drawn from it",
    "crop.layout": "random squares, or a grid",
    "crop.candidates": "squares drawn in each image",
    "crop.min_scale": "side of the smallest, as a share of the image's shorter side",
    "crop.max_scale": "side of the largest",
    "crop.max_views": "most crops kept of an image",
    "crop.iou_thresholds": "thresholds that the crops are prepared for",
    "refine.sources": "sources of descriptions that are joined",
    "refine.label_prompt": "what descriptions are ranked and weighted by",
    "refine.cosine_threshold": "a description this similar to a kept one is dropped",
    "refine.top_k": "descriptions kept of each class, those closest to the label prompt",
    "refine.waffle_pairs": "texts of random words, and as many of random characters, for each class",
    "score.iou_threshold": "a crop is dropped if it overlaps a kept one more than this",
    "score.views_per_run": "crops drawn in each run",
    "score.runs": "runs that the means and deviations are over",
    "score.image_scale": "log-scale of the weights of crops",
    "score.text_scale": "log-scale of the weights of descriptions",
    "score.normalize": "whether both weighted sums are normalised (the published code does, the paper does not)",
    "score.descriptor_mean": "how descriptors and random words are averaged",
    "score.csv_method": "the method of predictions.csv",
}
"""Settings by their key in params.yaml."""


@dataclass(frozen=True)
class About:
    """What made a report."""

    dataset: str
    encoder: EncoderMeta
    images: ImagesParameters
    image_count: int
    class_count: int
    score: PredictionsParameters
    texts: TextsParameters | None
    boxes: BoxesParameters | None
    """None where the file is missing."""

    @property
    def facts(self) -> list[tuple[str, str]]:
        """The most important, as terms and what is said of them."""
        found = [("Data set", self._data), ("Encoder", self._encoder)]
        if self.score.seed is not None:
            found.append(("Seed", str(self.score.seed)))
        found += [("Crops", self._crops), ("Texts", self._texts), ("Runs", self._runs)]
        return [(term, said) for term, said in found if said]

    @property
    def settings(self) -> list[tuple[str, str, str]]:
        """Each setting: its key in params.yaml, its value and what it means."""
        values: dict[str, object] = {} if self.score.seed is None else {"seed": self.score.seed}
        if self.boxes:
            values |= _keyed("crop", self.boxes, Crop)
        if self.texts:
            # Texts keep all sources that were read under the name that the section has for those refined.
            values |= _keyed("refine", self.texts, Refine) | {"refine.sources": self.texts.refined}
        values |= _keyed("score", self.score, Score)
        return [(key, _said(value), MEANINGS.get(key, "")) for key, value in values.items()]

    @property
    def _data(self) -> str:
        split = f", split {self.images.split}" if self.images.split else ""
        classes = "1 class" if self.class_count == 1 else f"{self.class_count:,} classes"
        images = "1 image" if self.image_count == 1 else f"{self.image_count:,} images"
        return f"{self.dataset}{split}: {images}, {classes}"

    @property
    def _encoder(self) -> str:
        encoder = self.encoder.shareable()
        weights = "random weights" if encoder.pretrained == UNTRAINED else f"weights {encoder.pretrained}"
        parts = [encoder.name, *([weights] if encoder.pretrained else []), f"hash of the weights {encoder.weights}"]
        return ", ".join([*parts, f"images of {encoder.image_size} × {encoder.image_size} pixels", encoder.precision])

    @property
    def _crops(self) -> str:
        if not self.boxes:
            return ""
        kind = {"random": "random squares", "grid": "squares on a grid"}[self.boxes.layout]
        scale = f"{self.boxes.min_scale:g} to {self.boxes.max_scale:g} of the shorter side"
        return (
            f"{self.boxes.candidates} {kind} in each image, {scale}. Refined: no two overlap by more than IoU "
            f"{self.score.iou_threshold:g}, at most {self.boxes.max_views}"
        )

    @property
    def _texts(self) -> str:
        if not self.texts:
            return ""
        texts = self.texts
        return (
            f"{', '.join(texts.refined)}. Refined: no two of a class with a cosine of {texts.cosine_threshold:g} or "
            f"more, then the {texts.top_k} closest to “{texts.label_prompt}”"
        )

    @property
    def _runs(self) -> str:
        if self.score.views_per_run == "all":
            return "1, with every crop"
        return f"{self.score.runs}, each with {self.score.views_per_run} crops drawn with replacement"


def read_about(
    dataset: str, model: str, predictions: Opened[PredictionsParameters], images: Labelled, classes: ClassTable
) -> About:
    """What made the predictions of a data set and model.

    Raises:
        UserError: texts or boxes are not whole, or the texts are of another model.
    """
    encoder = predictions.meta.encoder()
    texts, boxes = paths.texts(dataset, model), paths.boxes(dataset)
    of_texts = read_meta(texts, TEXTS, dataset) if texts.exists() else None
    if of_texts:
        require_same_model((texts, of_texts.encoder()), (predictions.path, encoder), "run `dvc repro`")
    return About(
        dataset=dataset,
        encoder=encoder,
        images=images.meta.parameters,
        image_count=len(images.image_ids),
        class_count=len(classes.names),
        score=predictions.meta.parameters,
        texts=of_texts.parameters if of_texts else None,
        boxes=read_meta(boxes, BOXES, dataset).parameters if boxes.exists() else None,
    )


def _keyed(name: str, parameters: BaseModel, section: type[Section]) -> dict[str, object]:
    """The values of a section of params.yaml that an artifact keeps, by their keys there."""
    values = parameters.model_dump(include=set(section.model_fields))
    return {f"{name}.{key}": value for key, value in values.items()}


def _said(value: object) -> str:
    """A value as params.yaml has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(_said(one) for one in value)
    return str(value)
