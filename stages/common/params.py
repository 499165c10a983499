"""`params.yaml` as one typed model: unknown or ill-typed keys are refused, naming the key and what is allowed."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from stages.common.errors import UserError, nearest
from stages.common.explain import explain
from stages.common.section import ByClass, Count, Key, LogScale, PromptText, RelativePath, Section, Templates, Unit
from stages.common.templates import fields
from stages.common.yamls import load_yaml

PARAMS_FILE = Path("params.yaml")
Parameters = TypeVar("Parameters", bound=BaseModel)

FINER_SOURCE = "finer"
"""The source that `stages/finer` makes of the concepts' attributes; `refine.sources` may name it."""

LABEL, TEMPLATE, WAFFLE = "label", "template", "waffle"
"""Sources of texts that no file lists: the label prompt, templates, and random words."""

RESERVED_SOURCES = (LABEL, TEMPLATE, WAFFLE, "kept", FINER_SOURCE)
"""Names in `texts.parquet` of texts that do not come from `describe`."""


class Demo(Section):
    seed: int
    images_per_class: Count


class Columns(Section):
    """Names of a manifest's or Parquet file's columns, or of a tar's endings; null is the usual name."""

    image: str | None = None
    label: str | None = None
    split: str | None = None
    coarse: str | None = None


class Dataset(Section):
    """One data set: which reader of `stages/ingest/datasets.py` reads it, and where its images are."""

    reader: str
    root: str
    remote_root: str | None = None
    split: str | None = None
    manifest: RelativePath | None = None
    columns: Columns = Columns()
    classes: str | list[str] | None = None
    names: ByClass | list[str] | None = None
    templates: Templates | None = None
    aliases: ByClass = Field(default_factory=dict)
    sources: list[str] | None = None
    crop: dict[str, Any] = Field(default_factory=dict)
    refine: dict[str, Any] = Field(default_factory=dict)
    score: dict[str, Any] = Field(default_factory=dict)


class Ingest(Section):
    on_bad_image: Literal["skip", "fail"]
    download: bool


class Preprocess(Section):
    """open_clip's preprocessing of an image; what is left out is open_clip's default."""

    mean: tuple[float, float, float] | None = Field(default=None, strict=False)
    std: tuple[float, float, float] | None = Field(default=None, strict=False)
    interpolation: Literal["bicubic", "bilinear"] | None = None
    resize_mode: Literal["shortest", "longest", "squash"] | None = None


class Model(Section):
    """One encoder: an open_clip name with a pretrained tag, a checkpoint path, or null for random weights."""

    name: str
    pretrained: str | None = None
    activation: Literal["gelu", "quick_gelu"] | None = None
    preprocess: Preprocess | None = None


class Prices(Section):
    """What the user pays, in USD per million tokens."""

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]


class Describe(Section):
    model: str
    mode: Literal["direct", "batch"] = "direct"
    concurrency: Count
    timeout: Annotated[float, Field(gt=0)]
    max_retries: Annotated[int, Field(ge=0)]
    batch_poll: Annotated[float, Field(gt=0)] = 60.0
    prices: Prices | None = None
    ask_in_experiments: bool = False


class Refine(Section):
    """Description refinement. The defaults are BiFTA's (arXiv 2601.20419), `waffle_pairs` is WaffleCLIP's."""

    sources: Literal["all"] | list[str] = "all"
    label_prompt: PromptText = "a photo of a {name}."
    cosine_threshold: Annotated[float, Field(ge=-1.0, le=1.01)] = 0.99
    top_k: Count = 50
    waffle_pairs: Count = 15
    batch_size: Count = 64

    @model_validator(mode="after")
    def _prompt_names_the_class(self) -> Refine:
        if not fields(self.label_prompt):
            raise ValueError("label_prompt must contain {name}")
        return self


def _ascending(thresholds: list[float]) -> list[float]:
    if sorted(set(thresholds)) != thresholds:
        raise ValueError("must be ascending, each threshold once")
    return thresholds


class Crop(Section):
    """View refinement. The defaults are BiFTA's (arXiv 2601.20419)."""

    layout: Literal["random", "grid"] = "random"
    candidates: Count = 300
    min_scale: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    max_scale: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    max_views: Count = 100
    iou_thresholds: Annotated[list[Unit], AfterValidator(_ascending)] = Field(default=[0.8], min_length=1)

    @model_validator(mode="after")
    def _scales_in_order(self) -> Crop:
        if self.min_scale > self.max_scale:
            raise ValueError("min_scale must not be above max_scale")
        return self


class Embed(Section):
    engine: Literal["local", "ray"]
    batch_size: Count | Literal["auto"]
    images_per_shard: Count


class Score(Section):
    """Weighted cross-alignment. The defaults are those of BiFTA's published configurations and code."""

    iou_threshold: Unit = 0.8
    views_per_run: Count | Literal["all"] = 60
    runs: Count = 20
    image_scale: LogScale = 4.0
    text_scale: LogScale = 2.0
    normalize: bool = True
    descriptor_mean: Literal["normalized", "plain"] = "normalized"
    csv_method: str = "bifta"

    @model_validator(mode="after")
    def _all_views_is_one_run(self) -> Score:
        if self.views_per_run == "all" and self.runs != 1:
            raise ValueError("views_per_run: all uses every kept view once, so runs must be 1")
        return self


class TrainSplit(Section):
    """Which entry of `datasets` has the train split of another."""

    dataset: str
    train: str


class Report(Section):
    pictures: Annotated[int, Field(ge=0)]
    reference: str = "wca"


class Params(Section):
    """The whole of `params.yaml`."""

    seed: Annotated[int, Field(ge=0)]
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    demo: Demo
    ingest: Ingest
    datasets: dict[Key, Dataset]
    models: dict[Key, Model]
    sources: dict[Key, Literal["sentences", "descriptors"]]
    describe: Describe
    refine: Refine
    crop: Crop
    embed: Embed
    score: Score
    report: Report
    supervised: list[TrainSplit]
    """Pairs of the stage `supervised`."""
    finer: Any = None
    """The section of `stages/finer`, a pipeline of its own, which reads it as `FinerParams`."""

    @model_validator(mode="after")
    def _choices_exist(self) -> Params:
        taken = [source for source in self.sources if source in RESERVED_SOURCES]
        if taken:
            raise ValueError(f"sources: '{taken[0]}' is taken by texts of the pipeline's own; rename the source")
        _check_choices(self, "")
        for key in self.datasets:
            _check_choices(self.for_dataset(key), f"datasets.{key}: ")
        _check_train_splits(self)
        return self

    @model_validator(mode="after")
    def _stage_names_differ(self) -> Params:
        """DVC joins the keys of a stage by '-'. Of two stages with the same name it silently keeps one."""
        first: dict[str, tuple[str, str]] = {}
        for pair in product(self.datasets, self.models):
            other = first.setdefault("-".join(pair), pair)
            if other != pair:
                raise ValueError(
                    f"DVC cannot tell datasets.{other[0]} with models.{other[1]} from datasets.{pair[0]} with "
                    f"models.{pair[1]}: both are '{'-'.join(pair)}'; rename one"
                )
        return self

    def evaluated(self) -> list[str]:
        """The keys of the data sets that methods are compared on: without the train splits of `supervised`."""
        train = {pair.train for pair in self.supervised}
        return [key for key in self.datasets if key not in train]

    def for_dataset(self, key: str) -> Params:
        """These parameters for one data set: with the overrides of its entry, and only its sources.

        Raises:
            ValueError: an override that its section does not allow, or an unknown source.
        """
        entry = self.datasets[key]
        sections = {name: _overridden(key, name, getattr(self, name), getattr(entry, name)) for name in OVERRIDABLE}
        if entry.sources is None:
            return self.model_copy(update=sections)
        for source in entry.sources:
            if source not in self.sources:
                known = list(self.sources)
                raise ValueError(
                    f"datasets.{key}.sources names '{source}', which is not under sources{nearest(source, known)}; "
                    f"there are: {', '.join(known)}"
                )
        sources = {source: kind for source, kind in self.sources.items() if source in entry.sources}
        refine: Refine = sections["refine"]
        if refine.sources != "all" and "sources" not in entry.refine:
            joined = [source for source in refine.sources if source in sources or source == FINER_SOURCE]
            if not joined and entry.sources:
                raise ValueError(
                    f"datasets.{key}: none of its sources {entry.sources} is among refine.sources {refine.sources}; "
                    f"set datasets.{key}.refine.sources"
                )
            sections["refine"] = refine.model_copy(update={"sources": joined})
        return self.model_copy(update={**sections, "sources": sources})

    def read_sources(self) -> dict[str, str]:
        """Every source that `refine` reads, and what it holds; including that of `stages/finer` if it is asked for."""
        finer = {FINER_SOURCE: "descriptors"} if FINER_SOURCE in self.refined_sources() else {}
        return {**self.sources, **finer}

    def refined_sources(self) -> list[str]:
        """The sources whose union is refined, in order."""
        if self.refine.sources != "all":
            return list(self.refine.sources)
        return [name for name, kind in self.sources.items() if kind == "sentences"]


OVERRIDABLE = ("crop", "refine", "score")
"""The entry of a data set may override any key of these sections."""


def _overridden(dataset: str, name: str, section: Section, own: dict[str, Any]) -> Any:
    """`section` with a data set's own values.

    Raises:
        ValueError: they are not allowed there.
    """
    if not own:
        return section
    try:
        return type(section).model_validate({**section.model_dump(), **own})
    except ValidationError as error:
        raise ValueError(explain(error, Params, f"datasets.{dataset}.", name)) from None


def _check_choices(params: Params, where: str) -> None:
    """Refuse a value that another parameter does not offer.

    Raises:
        ValueError: as above; the text begins with `where`.
    """
    threshold, offered = params.score.iou_threshold, params.crop.iou_thresholds
    if threshold not in offered:
        raise ValueError(f"{where}score.iou_threshold {threshold:g} is not one of crop.iou_thresholds {offered}")
    for source in params.refine.sources if params.refine.sources != "all" else ():
        if params.sources.get(source) != "sentences" and source != FINER_SOURCE:
            allowed = [name for name, kind in params.sources.items() if kind == "sentences"]
            raise ValueError(
                f"{where}refine.sources names '{source}', allowed are 'all' or some of {allowed} and '{FINER_SOURCE}'"
            )


def _check_train_splits(params: Params) -> None:
    """Refuse pairs of entries that do not exist, and train splits for which descriptions would be paid for.

    Raises:
        ValueError: as above.
    """
    known = list(params.datasets)
    for number, pair in enumerate(params.supervised):
        for key in (pair.dataset, pair.train):
            if key not in known:
                there = ", ".join(known)
                raise ValueError(f"supervised names '{key}', which is not under datasets{nearest(key, known)}: {there}")
        if pair.dataset == pair.train:
            raise ValueError(f"supervised: '{pair.dataset}' cannot be its own train split; name another entry")
        if any(pair.dataset == other.dataset for other in params.supervised[:number]):
            raise ValueError(f"supervised names the data set '{pair.dataset}' twice; leave one pair")
        if params.datasets[pair.train].sources is None:
            raise ValueError(
                f"datasets.{pair.train}: a train split needs no descriptions; add `sources: []`, or list the sources "
                "that it is to have, because missing files are written by the LLM"
            )


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check `params.yaml`; its section `finer` is left to `stages/finer`.

    Raises:
        UserError: as `load_model`.
    """
    return load_model(Params, path)


def load_model(model: type[Parameters], path: Path) -> Parameters:
    """Read and check `params.yaml` as a `model`.

    Raises:
        UserError: no such file, not UTF-8 or not YAML, an unknown key, a missing key or a value that is not allowed.
    """
    try:
        raw = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no {path} here; run from the project's root folder") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not in UTF-8 ({error.reason} at byte {error.start}); save it as such") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, model)}") from None
