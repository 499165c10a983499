"""Where each artifact of the benchmark lives, relative to the project's root; described in `data/README.md`."""

from __future__ import annotations

from pathlib import Path

from stages.common.paths import DESCRIPTIONS, FINER

TRAIN, TEST = "train", "test"
"""Splits of a data set's images: to train on (tuning, probe), and to be asked about."""


def unified(dataset: str, split: str) -> Path:
    return FINER / "unified" / f"unified-{dataset}-{split}-combined.jsonl"


def attributes(dataset: str) -> Path:
    """The concept-attribute file."""
    return DESCRIPTIONS / dataset / "attributes.json"


def attributes_by_class(dataset: str) -> Path:
    """One concept for each class, in order of labels: what later stages read."""
    return FINER / "attributes" / f"{dataset}.json"


def texts(dataset: str) -> Path:
    """The user's texts about classes: JSON Lines of `name` and `text`."""
    return DESCRIPTIONS / dataset / "concepts.jsonl"


def concept_responses(dataset: str) -> Path:
    """The log of the language model's answers about concepts."""
    return FINER / "concepts" / f"{dataset}.jsonl"


def responses(lvlm: str, dataset: str) -> Path:
    return FINER / "responses" / lvlm / f"{dataset}.jsonl"


def server_log(lvlm: str) -> Path:
    """What the server of a checkpoint said; it may have paths of this machine, so that it is no output."""
    return FINER / "servers" / f"{lvlm}.log"


def answers(lvlm: str, dataset: str) -> Path:
    return FINER / "answers" / lvlm / f"{dataset}.parquet"


SCORES = FINER / "scores.parquet"
"""One row for each question: exact match and F1 of its answer, as published and strict."""

METRICS = FINER / "metrics.json"
EXACT_MATCH = FINER / "exact_match.json"
"""The headline figures of METRICS, for `dvc metrics show`."""
REPORT = FINER / "report"
"""Folder of tables, plot data and pictures."""

MIXTURE = FINER / "mixture"
"""Folder of `attributes` and `direct`, both as `.json` (LLaVA) and `.parquet` (chat messages), and `classes.json`."""

MODELS = FINER / "models"
"""Folder of checkpoints in the layout of `transformers`: `toy`, and `tuned`, which `tune` writes."""

TUNE = FINER / "tune"
"""Folder of adapters, their checkpoints and the loss."""

PROBE = FINER / "probe"
DRAWINGS = FINER / "drawings"
"""Folder of the toy's drawings and `drawings.jsonl`."""
