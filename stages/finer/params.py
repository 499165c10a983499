"""The section `finer` of `params.yaml`: the FINER benchmark (arXiv 2402.16315), `stages/finer/dvc.yaml`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from stages.common.errors import UserError, nearest
from stages.common.params import PARAMS_FILE, Params, load_model
from stages.common.section import Count, Key, Section, Unit
from stages.finer.promptings import Granularity, Modality, known_prompting

Rank = Literal["genus", "family", "order", "class"]

Positive = Annotated[float, Field(gt=0.0)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]


def _each_once(values: list) -> list:
    if len(set(values)) != len(values):
        raise ValueError("must name each once")
    return values


class Benchmark(Section):
    """A data set that takes part.

    `train_share` is the share of each class's images for tuning and the probe. `unified` and `unified_train` are
    published files to be asked about and to train on, in place of built ones. `rank` is that of iNaturalist's coarse
    label; the default is the family."""

    train_share: Share = 0.5
    unified: str | None = None
    unified_train: str | None = None
    rank: Rank | None = None

    @model_validator(mode="after")
    def _what_fits_a_published_file(self) -> Benchmark:
        if self.unified_train is not None and self.unified is None:
            raise ValueError("unified_train is given without unified; give the file to be asked about as well")
        if self.rank is not None and self.unified is not None:
            raise ValueError("rank is given beside unified, a file that has coarse labels of its own; take one out")
        return self


_RESERVED = ("model", "messages", "n", "stream", "response_format")


def _own_keys_only(settings: dict[str, Any]) -> dict[str, Any]:
    for key in settings:
        if key in _RESERVED:
            raise ValueError(f"must not hold '{key}', which is set elsewhere")
    return settings


Settings = Annotated[dict[str, Any], AfterValidator(_own_keys_only)]
"""What is sent with a request in addition to the usual settings, or in their place; null takes a key out."""


def merge_settings(usual: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The settings that are sent with a request."""
    return {key: value for key, value in {**usual, **own}.items() if value is not None}


def _name_of_a_variable(name: str) -> str:
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) or name.startswith("sk_"):
        raise ValueError("must be the name of an environment variable, such as OPENAI_API_KEY, and not the key itself")
    return name


class Endpoint(Section):
    """An OpenAI-compatible chat endpoint that takes images; the key is read from the environment.

    `vision: true` says that the model sees images, so that token counts are not checked.
    """

    model: str
    base_url: str | None = None
    api_key_env: Annotated[str, AfterValidator(_name_of_a_variable)] = "OPENAI_API_KEY"
    settings: Settings = Field(default_factory=dict)
    vision: bool = False


class Concepts(Section):
    """Asking a language model for the attributes of concepts."""

    model: str
    structured: bool
    words: Count
    settings: Settings = Field(default_factory=dict)
    ask_in_experiments: bool = False


class Ask(Section):
    """Which questions are put to the LVLMs, and how."""

    granularities: Annotated[list[Granularity], Field(min_length=1), AfterValidator(_each_once)]
    prompting: Annotated[
        list[Annotated[str, AfterValidator(known_prompting)]], Field(min_length=1), AfterValidator(_each_once)
    ]
    inputs: Annotated[list[Modality], Field(min_length=1), AfterValidator(_each_once)]
    images_per_class: Count | None
    temperature: Annotated[float, Field(ge=0.0)]
    max_tokens: Count
    concurrency: Count
    timeout: Positive
    max_retries: Annotated[int, Field(ge=0)]


class FinerScore(Section):
    resamples: Count


class Probe(Section):
    """The linear probe: an MLP on frozen features, before and after the projector."""

    epochs: Count
    seeds: Count
    hidden: Count
    learning_rate: Positive
    batch_size: Count


class Mixture(Section):
    """The instruction-tuning mixture."""

    leave_out: Key | None
    held_out_classes: Share
    per_dataset: Count
    append: str | None


class Tune(Section):
    """LoRA on the language model of a LLaVA-architecture model. Defaults are the paper's (FINER, section 5)."""

    model: str
    mixture: Literal["attributes", "direct"]
    rank: Count = 128
    alpha: Count = 256
    dropout: Share = 0.05
    learning_rate: Positive = 2e-4
    warmup: Unit = 0.03
    epochs: Count = 1
    batch_size: Count = 16
    micro_batch: Count
    projector: bool
    save_steps: Count


class Toy(Section):
    """The tiny LLaVA-architecture model of the embedded default."""

    drawings: Count
    steps: Count
    batch_size: Count
    learning_rate: Positive


class Finer(Section):
    """The whole section."""

    datasets: dict[Key, Benchmark]
    endpoints: dict[Key, Endpoint]
    served: dict[Key, str]
    encoder: Key
    concepts: Concepts
    ask: Ask
    score: FinerScore
    probe: Probe
    mixture: Mixture
    tune: Tune
    toy: Toy


class FinerParams(Params):
    """`params.yaml` with the section of this pipeline."""

    finer: Finer


def load_finer_params(path: Path = PARAMS_FILE) -> FinerParams:
    """Read and check `params.yaml`.

    Raises:
        UserError: as `load_params`; a name in `finer` that does not exist elsewhere, or one key for two LVLMs.
    """
    params = load_model(FinerParams, path)
    _check_names(params)
    return params


def _check_names(params: FinerParams) -> None:
    """Check the names in the section `finer`.

    Raises:
        UserError: a name that does not exist elsewhere in params.yaml, or one key for two LVLMs.
    """
    finer = params.finer
    named = [("finer.datasets", key, "datasets", list(params.datasets)) for key in finer.datasets]
    named.append(("finer.encoder", finer.encoder, "models", list(params.models)))
    if finer.mixture.leave_out is not None:
        named.append(("finer.mixture.leave_out", finer.mixture.leave_out, "finer.datasets", list(finer.datasets)))
    for where, key, section, known in named:
        if key not in known:
            raise UserError(
                f"params.yaml: {where} names '{key}', which is not under {section}{nearest(key, known)}; "
                f"there are: {', '.join(known)}"
            )
    both = [key for key in finer.endpoints if key in finer.served]
    if both:
        raise UserError(f"params.yaml: '{both[0]}' is under finer.endpoints and finer.served; rename one")
