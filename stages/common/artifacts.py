"""Every Parquet artifact of the pipeline: its columns, and the metadata that says what made it.

The metadata is a JSON object under the schema key `bifta`. `data/README.md` describes both for readers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from stages.common import checks
from stages.common.errors import UserError
from stages.common.params import Crop, Score

FORMAT = 2
"""Version of the artifact formats. Format 1, which `embed` and `refine` read, had no architecture."""

UNTRAINED = "UNTRAINED"
"""What metadata and metrics say in place of a pretrained tag where the weights are random."""

TEXT_EMBEDDING, VIEW_EMBEDDING = pa.list_(pa.float32(), 0), pa.list_(pa.float16(), 0)
"""Placeholders of embedding columns: fixed-size lists of this float type, of the width that the metadata gives."""


class Record(BaseModel):
    """A part of the metadata: no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def noted(place: str) -> str:
    """A model's name, tag or path as the metadata notes it: of a path outside the project only the last part.

    Files are shared, and the folders of one machine mean nothing on another.
    """
    schema = "local-dir:" if place.startswith("local-dir:") else ""
    path = Path(place.removeprefix(schema))
    outside = path.is_absolute() or ".." in path.parts or path.parts[:1] == ("~",)
    return f"{schema}{path.name}" if outside else place


class EncoderMeta(Record):
    """The encoder that made an artifact. `name` and `pretrained` are notes, the other fields decide what it is."""

    weights: str
    """Hash of the parameters and buffers, see `encoders.weights_hash`."""
    architecture: dict[str, JsonValue] | None = None
    """open_clip's model configuration without what is open_clip's default; None in files of format 1."""
    activation: str
    """gelu or quick_gelu."""
    image_size: int
    """Side of the square that the image tower takes, in pixels."""
    preprocess: dict[str, JsonValue]
    """`mean`, `std`, `interpolation` and `resize_mode`."""
    embedding_dim: int
    precision: str
    """In which the tower computed: float32, bfloat16 or float16."""
    name: str
    """Note: `name` in params.yaml."""
    pretrained: str | None = None
    """Note: the tag or path that the weights came from."""

    def shareable(self) -> EncoderMeta:
        """The same with notes as `noted` writes them."""
        pretrained = None if self.pretrained is None else noted(self.pretrained)
        return self.model_copy(update={"name": noted(self.name), "pretrained": pretrained})

    def identity(self) -> dict[str, Any]:
        """What must agree between texts and views. The precision of the image tower may differ."""
        return self.model_dump(include={"weights", "architecture", "activation", "image_size", "preprocess"})

    def same_model(self, other: EncoderMeta) -> bool:
        """Whether both are the same encoder. A file of format 1 has no architecture: there the weights decide."""
        mine, theirs = self.identity(), other.identity()
        return all(
            mine[key] == theirs[key] for key in mine if key != "architecture" or None not in (mine[key], theirs[key])
        )


class IngestParameters(Record):
    reader: str = "folder"
    split: str | None = None


class ImagesParameters(IngestParameters):
    classes: str = ""
    """Digest of the class names, in order, that the labels number."""
    unpacked: bool = False
    """Whether image_ids are relative to `data/<dataset>/unpacked` instead of the data set's root."""


class ClassesParameters(IngestParameters):
    """What `refine` needs to read description files; labels are keys of the mappings, as strings."""

    templates: str | list[str] = []
    aliases: dict[int, str] = {}
    fallbacks: dict[int, list[str]] = {}
    taken_from: str | None = None
    """The data set whose classes these are; `describe` takes its descriptions as well."""


class BoxesParameters(Crop):
    seed: int

    def require(self, threshold: float, path: Path) -> None:
        """Refuse boxes that do not have an IoU threshold.

        Raises:
            UserError: names the thresholds that there are.
        """
        if threshold not in self.iou_thresholds:
            raise UserError(
                f"score.iou_threshold {threshold:g} is not among those {path} was made with: {self.iou_thresholds}; "
                "run `dvc repro crop`"
            )


class SourceFile(Record):
    """A file of descriptions, as it was when the texts were made of it."""

    name: str
    """Of the source."""
    sha256: str
    """First 16 hex digits, of its bytes."""
    origin: str | None = None
    """The LLM that wrote it, by the log of its answers; None where the log does not say."""
    sentences: int


class TextsParameters(Record):
    seed: int
    classes: str = ""
    """Digest of the class names, in order."""
    sources: Mapping[str, str]
    """Every source that was read, and what it holds: "sentences" or "descriptors"."""
    refined: list[str]
    """The sources whose union was refined."""
    files: list[SourceFile] = Field(default_factory=list)
    """The file of each source, in order; empty in texts of an earlier version. A note: the texts themselves decide."""
    label_prompt: str
    cosine_threshold: float
    top_k: int
    waffle_pairs: int


class ViewsParameters(Record):
    crop: BoxesParameters


class PredictionsParameters(Score):
    seed: int | None = None
    methods: list[str] = Field(default_factory=list)
    """Every method that was asked for; those whose sources are missing have no rows."""
    scoring: str = ""
    """`methods.SCORING` of the code that scored; empty in predictions of an earlier version."""
    files: list[SourceFile] = Field(default_factory=list)
    """As those of the texts."""

    def settings(self) -> dict[str, Any]:
        """What params.yaml says: without what the stage found out."""
        return self.model_dump(exclude={"methods", "scoring", "files"})


class ShardNote(Record):
    """What one shard holds."""

    index: int
    images: int
    content: str
    """Digest of the image_ids and contents of its images, in order."""
    crops_digests: list[str]
    """For each image the digest of its content and all candidate boxes."""
    candidates: str
    """Digest of the candidates that are embedded."""


Parameters = TypeVar("Parameters", bound=BaseModel)


def _crops_digests(raw: dict[str, Any]) -> dict[str, Any]:
    """Metadata of views of format 1, which called the digests drawings."""
    shard = dict(raw.get("shard") or {})
    return {**raw, "shard": {"crops_digests": shard.pop("drawings", None), **shard}}


class Metadata(Record, Generic[Parameters]):
    """The `bifta` object of an artifact."""

    format: int = FORMAT
    artifact: str
    dataset: str
    parameters: Parameters
    model: EncoderMeta | None = None
    shard: ShardNote | None = None
    signed: bool = True
    """Whether digests stand beside; files of earlier versions have none and do not say so."""

    def without_notes(self) -> Metadata[Parameters]:
        """The same without where the weights came from."""
        return self.model_copy(update={"model": self.encoder().model_copy(update={"name": "", "pretrained": None})})

    def encoder(self) -> EncoderMeta:
        """The encoder of an artifact that one made."""
        assert self.model is not None
        return self.model


@dataclass(frozen=True)
class Artifact(Generic[Parameters]):
    """The declaration of a kind of file."""

    name: str
    columns: pa.Schema
    parameters: type[Parameters]
    by_model: bool = False
    """Whether an encoder made it, so that its metadata names one."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Columns of format 1 -> their present names."""
    upgrade: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    """From the metadata of format 1, as JSON, to that of the present format."""
    check: Callable[[pa.Table, Metadata[Parameters]], str] | None = None
    """What is wrong with some of its rows and columns, in words; empty if nothing is."""

    def mismatch(self, schema: pa.Schema, meta: Metadata[Parameters]) -> str:
        """How a file differs from the declaration, in words; empty if it does not."""
        if self.by_model and meta.model is None:
            return "its metadata names no model"
        for column in self.columns:
            place = schema.get_field_index(column.name)
            if place < 0:
                return f"it has no column '{column.name}'"
            there, wanted = schema.field(place).type, column.type
            if pa.types.is_fixed_size_list(wanted):
                wanted = pa.list_(wanted.value_type, meta.encoder().embedding_dim)
            if there != wanted:
                return f"its column '{column.name}' is {there}, not {wanted}"
        return ""


IMAGES = Artifact(
    "images",
    pa.schema(
        {
            "image_id": pa.string(),
            "label": pa.int32(),
            "width": pa.int32(),
            "height": pa.int32(),
            "content": pa.string(),
        }
    ),
    ImagesParameters,
    check=checks.check_images,
)
CLASSES = Artifact(
    "classes",
    pa.schema(
        {
            "label": pa.int32(),
            "name": pa.string(),
            "superordinate": pa.string(),
            "coarse": pa.list_(pa.string()),
            "fine": pa.list_(pa.string()),
        }
    ),
    ClassesParameters,
    check=checks.check_classes,
)
SKIPPED = Artifact(
    "skipped", pa.schema({"image_id": pa.string(), "reason": pa.string()}), IngestParameters, check=checks.check_skipped
)
BOXES = Artifact(
    "boxes",
    pa.schema(
        {
            "image_id": pa.string(),
            "candidate": pa.int32(),
            "left": pa.int32(),
            "top": pa.int32(),
            "right": pa.int32(),
            "bottom": pa.int32(),
            "kept": pa.list_(pa.float32()),
        }
    ),
    BoxesParameters,
    check=checks.check_boxes,
)
TEXTS = Artifact(
    "texts",
    pa.schema(
        {
            "label": pa.int32(),
            "source": pa.string(),
            "description": pa.string(),
            "tokens": pa.int32(),
            "truncated": pa.bool_(),
            "label_similarity": pa.float32(),
            "kept": pa.bool_(),
            "dropped_because": pa.string(),
            "duplicate_of": pa.int32(),
            "embedding": TEXT_EMBEDDING,
        }
    ),
    TextsParameters,
    by_model=True,
    check=checks.check_texts,
)
VIEWS = Artifact(
    "views",
    pa.schema(
        {
            "image_id": pa.string(),
            "candidate": pa.int32(),
            "similarity": pa.float32(),
            "embedding": VIEW_EMBEDDING,
        }
    ),
    ViewsParameters,
    by_model=True,
    upgrade=_crops_digests,
    check=checks.check_views,
)
PREDICTIONS = Artifact(
    "predictions",
    pa.schema(
        {
            "image_id": pa.string(),
            "label": pa.int32(),
            "method": pa.string(),
            "run": pa.int32(),
            "predicted": pa.int32(),
            "score": pa.float32(),
            "margin": pa.float32(),
        }
    ),
    PredictionsParameters,
    by_model=True,
    check=checks.check_predictions,
)
TOP5 = Artifact(
    "top5",
    pa.schema(
        {
            "image_id": pa.string(),
            "label": pa.int32(),
            "method": pa.string(),
            "classes": pa.list_(pa.int32()),
            "scores": pa.list_(pa.float32()),
            "agreement": pa.float32(),
        }
    ),
    PredictionsParameters,
    by_model=True,
    check=checks.check_top5,
)
