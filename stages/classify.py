"""Classifying image files with the texts that a data set already has: `stages.load_classifier` and `stages.predict`.

Crops, views and scores are those that the pipeline gives an image of the same image_id. Nothing is written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stages.common import paths
from stages.common.artifacts import TEXTS
from stages.common.cli import check_key
from stages.common.encoders import Encoder, has_unit_norm, load_encoder, require_unit
from stages.common.errors import UserError, warn
from stages.common.images import UNREADABLE, open_rgb, reason
from stages.common.labels import UNKNOWN, read_classes
from stages.common.methods import ALL, REFINED, WHOLE, Method, find, require_method
from stages.common.names import told_apart
from stages.common.params import PARAMS_FILE, Params, load_params
from stages.common.ranking import Best
from stages.common.tables import read_table, require_same_model
from stages.crop.boxes import draw_candidates, surviving
from stages.embed.encode import Embedded, embed_pictures, fetch
from stages.embed.shards import ImageViews
from stages.score.methods import available, class_vectors
from stages.score.outcomes import Classes, fetch_best, on_device, prepare, score_batch
from stages.score.outcomes import fetch as fetch_ranks
from stages.score.people import named_rows
from stages.score.stream import ViewBatch


@dataclass(frozen=True)
class Prediction:
    """What a method says of an image."""

    image: str
    """The path that was given."""
    image_id: str
    """What the crops and the views of each run were drawn from, beside the seed."""
    classes: list[str]
    """The five best, or all where there are fewer, best first."""
    scores: list[float]
    """Theirs, the mean over runs."""
    margin: float
    """From the first class to the second; 0 where there is no other."""
    agreement: float
    """The share of the runs that predict the first class."""
    method: str

    @property
    def predicted(self) -> str:
        return self.classes[0]

    @property
    def score(self) -> float:
        return self.scores[0]

    @property
    def runner_up(self) -> str:
        """Empty where there is one class alone."""
        return self.classes[1] if len(self.classes) > 1 else ""


@dataclass(frozen=True)
class Classifier:
    """A method with the texts and the settings of a data set."""

    params: Params
    """With the overrides of the data set's entry."""
    dataset: str
    method: Method
    names: list[str]
    """Of the classes, by label; those that several share have their label added."""
    encoder: Encoder
    compared: Classes

    def classify(self, images: Iterable[str | Path], folder: str | Path | None = None) -> Iterator[Prediction]:
        """Classify image files, one after the other.

        Args:
            folder: that the image_ids of files below it are relative to. Files below the data set's root have those of
                the data set. All others have their names.

        Raises:
            UserError: an image that cannot be read, unless `ingest.on_bad_image` is `skip`; then it is left out with a
                warning.
        """
        photos: dict[str, Image.Image] = {}
        under_way: deque[tuple[Path, ImageViews]] = deque()

        def read() -> Iterator[ImageViews]:
            for number, path in enumerate(map(Path, images)):
                photo = self._open(path)
                if photo is not None:
                    views = self._views(photo, self.image_id(path, folder), str(number))
                    photos[views.content] = photo
                    under_way.append((path, views))
                    yield views

        def pixels(views: ImageViews) -> Image.Image:
            return photos.pop(views.content)

        for embedded in embed_pictures(read(), pixels, self.encoder, self.params.embed.batch_size):
            path, views = under_way.popleft()
            yield self._predict(str(path), views, fetch([embedded])[0])

    def image_id(self, path: Path, folder: str | Path | None = None) -> str:
        """What the crops of an image are drawn from: a POSIX path, as `classify` says."""
        own: list[str | Path] = [self.params.datasets[self.dataset].root, paths.unpacked(self.dataset)]
        for root in map(Path, [*own, *([folder] if folder is not None else [])]):
            for ours, theirs in ((path.absolute(), root.absolute()), (path.resolve(), root.resolve())):
                if ours.is_relative_to(theirs):
                    return ours.relative_to(theirs).as_posix()
        return path.name

    def _open(self, path: Path) -> Image.Image | None:
        """The photo, or None with a warning where unreadable ones are skipped."""
        try:
            return open_rgb(path)
        except UNREADABLE as error:
            problem = f"image '{path}' cannot be read ({reason(error)})"
        if self.params.ingest.on_bad_image == "fail":
            raise UserError(f"{problem}; leave it out, or set ingest.on_bad_image: skip")
        warn(f"{problem}; it is left out")
        return None

    def _views(self, photo: Image.Image, image_id: str, number: str) -> ImageViews:
        """The crops that the method looks at; `number` stands for the content."""
        crop = self.params.crop
        boxes = draw_candidates(*photo.size, crop, self.params.seed, image_id)
        wanted = np.zeros(len(boxes), dtype=bool)
        if self.method.views == ALL:
            wanted[: crop.max_views] = True
        elif self.method.views == REFINED:
            wanted = surviving(boxes, [self.params.score.iou_threshold], crop.max_views)[:, 0]
        return ImageViews(image_id, number, "", np.flatnonzero(wanted).astype(np.int32), boxes[wanted])

    def _predict(self, path: str, views: ImageViews, embedded: Embedded) -> Prediction:
        unit, precision = has_unit_norm(embedded.embeddings), self.encoder.meta.precision
        require_unit(unit, lambda row: f"view {row} of '{path}'", self.encoder.where, precision)
        crops = np.ones((1, len(unit)), dtype=bool)
        crops[0, 0] = False  # the whole image
        pools = {ALL: crops, REFINED: crops}
        batch = ViewBatch(0, embedded.embeddings.numpy()[None], embedded.similarity.numpy()[None], pools)
        score, unknown = self.params.score, np.array([UNKNOWN])
        inputs = prepare(batch, [views.image_id], unknown, score, self.params.seed, self.encoder.device)
        scored = score_batch(inputs, [self.compared], score)
        runs = 1 if self.method.views == WHOLE else score.runs
        (best,) = fetch_best(scored, fetch_ranks(scored.ranks, [runs]))
        return self._named(path, views.image_id, best)

    def _named(self, path: str, image_id: str, best: Best) -> Prediction:
        (row,) = named_rows([path], [""], best, self.names, self.method.name)
        classes = [self.names[label] for label in best.labels[0].tolist()]
        scores = [round(score, 6) for score in best.scores[0].tolist()]
        return Prediction(path, image_id, classes, scores, row["margin"], row["agreement"], self.method.name)


def load_classifier(dataset: str, model: str, method: str | None = None) -> Classifier:
    """A classifier with the class texts that `dvc repro refine` has made of a data set, for use many times.

    Run it in the project's root folder: it reads params.yaml, `classes.parquet` and `texts.parquet`.

    Args:
        dataset, model: keys of params.yaml.
        method: a row of docs/methods.md; None: `score.csv_method`, which is `bifta` by default.

    Raises:
        UserError: no such key or method, no texts of it, or texts of another model or of other classes.
    """
    params = load_params()
    check_key("datasets", dataset, params.datasets)
    check_key("models", model, params.models)
    params = params.for_dataset(dataset)
    name = params.score.csv_method if method is None else method
    require_method("method", name)
    texts_path, classes = paths.texts(dataset, model), read_classes(dataset)
    texts, meta = read_table(texts_path, TEXTS, dataset=dataset)
    classes.require(texts_path, meta.parameters.classes)
    there = [one.name for one in available(texts)[0]]
    if name not in there:
        raise UserError(
            f"{texts_path} has no texts for the method '{name}'; it has those of: {', '.join(there)}; "
            "give one of them as --method"
        )
    chosen = find(name)
    vectors = class_vectors(texts_path, texts, [chosen], len(classes.names), params.score)
    encoder = load_encoder(model, params)
    asked = (Path(f"{PARAMS_FILE}: models.{model}"), encoder.meta)
    require_same_model((texts_path, meta.encoder()), asked, "run `dvc repro refine`")
    (compared,) = on_device([chosen], vectors, encoder.device)
    return Classifier(params, dataset, chosen, told_apart(classes.names), encoder, compared)


def as_rows(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """One object for each, with the columns of `predictions.csv`."""
    return [
        {
            "image": found.image,
            "true_class": "",
            "predicted": found.predicted,
            "score": found.score,
            "margin": found.margin,
            "runner_up": found.runner_up,
            "agreement": found.agreement,
            "method": found.method,
        }
        for found in predictions
    ]
