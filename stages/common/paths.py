"""Where each artifact lives, relative to the project's root; the contract is described in `data/README.md`."""

from __future__ import annotations

from pathlib import Path

DATA = Path("data")
DESCRIPTIONS = Path("descriptions")
FINER = DATA / "finer"
"""Everything of the pipeline `stages/finer`, except the folders `attrseek`."""
ATTRSEEK = "attrseek"


def images(dataset: str) -> Path:
    return DATA / dataset / "images.parquet"


def classes(dataset: str) -> Path:
    return DATA / dataset / "classes.parquet"


def skipped(dataset: str) -> Path:
    """The images that `ingest` left out, with their reasons."""
    return DATA / dataset / "skipped.parquet"


def unpacked(dataset: str) -> Path:
    """Folder of the images that were unpacked from archives."""
    return DATA / dataset / "unpacked"


def settings(dataset: str, section: str) -> Path:
    """A section of params.yaml with the data set's overrides."""
    return DATA / dataset / "settings" / f"{section}.json"


def boxes(dataset: str) -> Path:
    return DATA / dataset / "boxes.parquet"


def prompt_source(source: str) -> Path:
    return DESCRIPTIONS / "prompts" / f"{source}.yaml"


def descriptions_folder(dataset: str) -> Path:
    return DESCRIPTIONS / dataset


def descriptions(dataset: str, source: str) -> Path:
    return descriptions_folder(dataset) / f"{source}.json"


def responses_folder(dataset: str) -> Path:
    return DATA / dataset / "responses"


def responses(dataset: str, source: str) -> Path:
    """The log of an LLM's answers, one JSON object a line."""
    return responses_folder(dataset) / f"{source}.jsonl"


def texts(dataset: str, model: str) -> Path:
    return DATA / dataset / model / "texts.parquet"


def views(dataset: str, model: str) -> Path:
    """Folder of the shards `part-*.parquet`."""
    return DATA / dataset / model / "views"


def old_texts(texts: Path) -> Path:
    """Folder of other versions of the texts, until `refine` has taken what it needs from them."""
    return texts.parent / ".old-texts"


def old_views(views: Path) -> Path:
    """Folder of outdated shards, until `embed` has written new ones."""
    return views / ".old"


def predictions(dataset: str, model: str) -> Path:
    return DATA / dataset / model / "predictions.parquet"


def top5(dataset: str, model: str) -> Path:
    """The five best classes of each image, by method."""
    return DATA / dataset / model / "top5.parquet"


def predictions_csv(dataset: str, model: str) -> Path:
    """One method's predictions by name, for people."""
    return DATA / dataset / model / "predictions.csv"


def metrics(dataset: str, model: str) -> Path:
    return DATA / dataset / model / "metrics.json"


def supervised(dataset: str, model: str) -> Path:
    """What classifiers reach that learn from labelled images."""
    return DATA / dataset / model / "supervised.json"


def attrseek(dataset: str, model: str) -> Path:
    """Folder of the method `attrseek`, which `stages/finer` scores."""
    return DATA / dataset / model / ATTRSEEK


def report(dataset: str, model: str) -> Path:
    """Folder of tables, plot data and pictures."""
    return DATA / dataset / model / "report"


REPORT_PAGE = "report.html"
"""In the folder of a report: all of it in one file, for a reader without the project."""


def summary() -> Path:
    """Folder of the one table over all data sets and models, and of the rows that it is made of."""
    return DATA / "summary"


def summary_row(dataset: str, model: str) -> Path:
    """What the report of a data set and a model says in figures, for the summary."""
    return summary() / "rows" / f"{dataset}-{model}.json"


def made_by(path: Path) -> str:
    """The command that makes an artifact."""
    return "make finer" if path.is_relative_to(FINER) or path.parent.name == ATTRSEEK else "dvc repro"
