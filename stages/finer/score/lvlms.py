"""score: `data/finer/answers/<lvlm>/<dataset>.parquet` -> `data/finer/scores.parquet` and `metrics.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from stages.common.encoders import Encoder, load_encoder
from stages.common.errors import UserError, warn
from stages.common.metrics import METRICS, metrics_digest
from stages.common.tables import make_meta, write_json, write_table
from stages.finer import paths
from stages.finer.answers import read_answers
from stages.finer.artifacts import SCORES, LvlmMeta, ScoresParameters
from stages.finer.attributes import Concept, read_by_class
from stages.finer.figures import GENERATION, HELD_OUT, SEEN, Figures, Parts
from stages.finer.params import FinerParams
from stages.finer.promptings import PROMPTINGS
from stages.finer.score.generation import Encode, asked_for_attributes, collect, generation_figures
from stages.finer.score.metrics import Draws, metrics_of
from stages.finer.score.scores import score_answers, summary

EMBED_BATCH = 64
MIXTURE_CLASSES = paths.MIXTURE / "classes.json"
IN_FILE = {SEEN: "seen", HELD_OUT: "held_out"}
"""Part -> its key in `classes.json`."""
MixtureClasses = dict[str, dict[str, list[str]]]


def score_lvlms(params: FinerParams) -> Iterator[str]:
    """Score every LVLM on every data set and write `scores.parquet` and `metrics.json`; the lines to print, one by one.

    Raises:
        UserError: no LVLM has answers; a file that is not what an earlier stage writes.
    """
    lvlms, datasets = [*params.finer.endpoints, *params.finer.served], list(params.finer.datasets)
    mixture, encode = read_mixture_classes(MIXTURE_CLASSES), encoder(params)
    tables: list[pa.Table] = []
    metrics: Figures = {lvlm: {} for lvlm in lvlms}
    models: dict[str, dict[str, LvlmMeta]] = {lvlm: {} for lvlm in lvlms}
    for dataset in datasets:
        known = Known(dataset, mixture)
        for lvlm in (lvlm for lvlm in lvlms if _has_answers(lvlm, dataset)):
            answers, meta = read_answers(paths.answers(lvlm, dataset), lvlm, dataset)
            scores = score_answers(answers, lvlm, dataset)
            draws = Draws(params.seed, params.finer.score.resamples, lvlm, dataset)
            # An endpoint was not tuned on this mixture, so it has no classes seen or held out.
            parts = known.parts if lvlm in params.finer.served else None
            metrics[lvlm][dataset] = figures_of(answers, scores, known, parts, draws, encode)
            models[lvlm][dataset] = meta.parameters.lvlm
            tables.append(scores)
            yield summary(lvlm, dataset, scores)
    if not tables:
        raise UserError("no LVLM of params.yaml has answers; run `make finer`")
    asked = ScoresParameters(lvlms=lvlms, datasets=datasets, models=models)
    figures = {lvlm: own for lvlm, own in metrics.items() if own}
    bound = {METRICS: metrics_digest(figures)}
    write_table(paths.SCORES, pa.concat_tables(tables), make_meta(SCORES, "finer", asked), **bound)
    write_json(paths.METRICS, figures)
    write_json(paths.EXACT_MATCH, headline(figures))


def _has_answers(lvlm: str, dataset: str) -> bool:
    path = paths.answers(lvlm, dataset)
    if not path.exists():
        warn(f"{path} is missing: {lvlm} is left out of {dataset}; ask it, or fetch it with `dvc pull {path}`")
    return path.exists()


@dataclass(frozen=True)
class Known:
    """What the LVLMs of a data set share, read when it is first needed."""

    dataset: str
    mixture: MixtureClasses | None
    """Data set -> names of its classes by part (keys of `classes.json`); None without a mixture."""

    @cached_property
    def concepts(self) -> list[Concept]:
        """By label."""
        return read_by_class(paths.attributes_by_class(self.dataset), {})

    @cached_property
    def parts(self) -> Parts | None:
        """Labels by part; None if the mixture has nothing about the data set. A warning names unknown classes."""
        if self.mixture is None or self.dataset not in self.mixture:
            return None
        named = self.mixture[self.dataset]
        unknown = sorted({name for part in named.values() for name in part} - {own.name for own in self.concepts})
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            warn(f"{MIXTURE_CLASSES}: {self.dataset} has no class '{unknown[0]}'{more}")
        return {
            part: {label for label, concept in enumerate(self.concepts) if concept.name in named[key]}
            for part, key in IN_FILE.items()
        }


def figures_of(
    answers: pa.Table, scores: pa.Table, known: Known, parts: Parts | None, draws: Draws, encode: Encode
) -> Figures:
    """All figures of one LVLM and data set.

    Args:
        parts: as `metrics_of` has them.

    Raises:
        UserError: there are attribute lists to compare, and the attribute file or a package is missing.
    """
    figures = metrics_of(pl.DataFrame(scores), draws, parts)
    lists = pl.DataFrame(answers.select(["label", "granularity", "prompting", "input", "attributes"]))
    if len(asked_for_attributes(lists)):
        file = paths.attributes(known.dataset)
        if (last := max(answers["label"].to_pylist())) >= len(known.concepts):
            by_class = paths.attributes_by_class(known.dataset)
            raise UserError(
                f"{by_class} has no class of label {last}, which {paths.answers(draws.lvlm, known.dataset)} has; run "
                "`dvc repro stages/finer/dvc.yaml`"
            )
        figures[GENERATION] = generation_figures(collect(lists, known.concepts, str(file)), encode, draws)
    return figures


def headline(figures: Figures) -> Figures:
    """{data set: {LVLM: {prompting: exact match in percent}}} at the fine level, asked with the image."""
    found: Figures = {}
    for lvlm, own in figures.items():
        for dataset, cells in own.items():
            asked = {prompting: cells.get(f"fine/image/{prompting}") for prompting in PROMPTINGS}
            matches = {prompting: cell["em"] for prompting, cell in asked.items() if cell}
            found.setdefault(dataset, {})[lvlm] = matches
    return found


def read_mixture_classes(path: Path) -> MixtureClasses | None:
    """`classes.json`, or None without a mixture.

    Raises:
        UserError: the file is something else.
    """
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        named = {str(dataset): {key: own[key] for key in IN_FILE.values()} for dataset, own in found.items()}
        if not all(isinstance(part, list) for own in named.values() for part in own.values()):
            raise TypeError
        return {
            dataset: {key: [str(name) for name in part] for key, part in own.items()} for dataset, own in named.items()
        }
    except (ValueError, AttributeError, TypeError, KeyError):
        raise UserError(
            f"{path} is not {{data set: {{seen: [class name, ...], held_out: [...]}}}}; run `python -m "
            "stages.finer.mixture`"
        ) from None


def encoder(params: FinerParams) -> Encode:
    """Embeds texts with `finer.encoder`, which is loaded when it is first needed."""

    @cache
    def load() -> Encoder:
        return load_encoder(params.finer.encoder, params)

    def encode(texts: Sequence[str]) -> np.ndarray:
        return load().encode_texts(texts, EMBED_BATCH, "attributes").numpy()

    return encode
