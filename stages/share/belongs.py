"""Whether a shared folder belongs to this params.yaml: whether the stages here would make the same tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.common import paths
from stages.common.artifacts import IMAGES, TEXTS, BoxesParameters, Metadata
from stages.common.cli import Job
from stages.common.encoders import load_encoder
from stages.common.errors import UserError
from stages.common.labels import ClassTable, read_classes
from stages.common.tables import open_table, read_table
from stages.refine.dataset import collect_texts, texts_parameters
from stages.share.gather import Gathered, Places, gather

HERE = "params.yaml"


class Differs(UserError):
    """The folder does not belong here: what differs, in words."""


def read_folder(job: Job, folder: Path) -> tuple[Gathered, list[str]]:
    """The tables of a shared folder, which belong to a data set and model of params.yaml.

    Returns:
        The tables, and what could not be compared, in words.

    Raises:
        UserError: a damaged folder, or one that does not belong here; names the first thing that differs.
    """
    places = Places.of_folder(folder)
    try:
        named = open_table(places.images, IMAGES).meta.dataset
        if named != job.dataset:
            raise Differs(f"it is of the data set '{named}', not '{job.dataset}'")
        found = gather(job.dataset, places)
    except Differs as error:
        raise _refusal(job, folder, error) from None
    except UserError as error:  # whose remedy is for the project's own files
        raise UserError(f"{str(error).split(';')[0]}; get the folder again") from None
    try:
        return found, _compare(job, found, places)
    except Differs as error:
        raise _refusal(job, folder, error) from None


def check(job: Job, folder: Path) -> str:
    """One line that says that a folder belongs here.

    Raises:
        UserError: as `read_folder`.
    """
    found, unknown = read_folder(job, folder)
    counts = ", ".join(f"{table.rows} {table.name}" for table in found.tables if table.rows)
    return f"{folder} belongs to datasets.{job.dataset} with models.{job.model}: {counts}{not_compared(unknown)}"


def not_compared(unknown: Sequence[str]) -> str:
    """The end of a line."""
    return f"; not compared: {', '.join(unknown)}" if unknown else ""


def _refusal(job: Job, folder: Path, differs: Differs) -> UserError:
    return UserError(f"{folder} does not belong to datasets.{job.dataset} with models.{job.model}: {differs}")


def _compare(job: Job, found: Gathered, places: Places) -> list[str]:
    """What could not be compared.

    Raises:
        Differs: the first thing that differs.
    """
    unknown, classes = [], found.classes
    if paths.classes(job.dataset).exists() and paths.images(job.dataset).exists():
        classes = read_classes(job.dataset)
        _compare_classes(found, classes)
        _compare_images(job, places)
    else:
        unknown.append(f"classes and images, because `dvc repro ingest@{job.dataset}` has not run")
    if found.boxes:
        wanted = BoxesParameters(seed=job.params.seed, **job.params.crop.model_dump())
        _compare_settings("crop", found.boxes, wanted.model_dump())
    if found.texts:
        _compare_settings("refine", found.texts, texts_parameters(job, classes.names).model_dump(exclude={"files"}))
        unknown += _compare_texts(job, classes, places)
    _compare_model(job, found)
    return unknown


def _compare_classes(found: Gathered, here: ClassTable) -> None:
    theirs, mine = found.classes.names, here.names
    if len(theirs) != len(mine):
        raise Differs(f"it has {len(theirs)} classes, {here.path} {len(mine)}")
    for label, (one, other) in enumerate(zip(theirs, mine, strict=True)):
        if one != other:
            raise Differs(f"the class {label} is '{one}' in the folder, '{other}' in {here.path}")


def _compare_images(job: Job, places: Places) -> None:
    """Ids, labels, sizes and bytes."""
    path = paths.images(job.dataset)
    theirs, mine = (read_table(at, IMAGES, dataset=job.dataset)[0].to_pylist() for at in (places.images, path))
    if len(theirs) != len(mine):
        raise Differs(f"it has {len(theirs)} images, {path} {len(mine)}")
    for one, other in zip(theirs, mine, strict=True):
        for key in IMAGES.columns.names:
            if one[key] != other[key]:
                of = "" if key == "image_id" else f" of '{one['image_id']}'"
                raise Differs(f"{key}{of} is {one[key]!r} in the folder, {other[key]!r} in {path}")


def _compare_settings(section: str, made: Metadata[Any], wanted: dict[str, Any]) -> None:
    theirs = made.parameters.model_dump()
    for key in ("seed", *sorted(wanted)):
        if theirs[key] != wanted[key]:
            name = {"seed": "seed", "refined": "refine.sources", "sources": "sources"}.get(key, f"{section}.{key}")
            raise Differs(f"{name} is {theirs[key]!r} in the folder, {wanted[key]!r} in {HERE}")


def _compare_texts(job: Job, classes: ClassTable, places: Places) -> list[str]:
    """The texts that `refine` would embed here, against those that are in the folder."""
    missing = [
        path
        for path in (paths.descriptions(job.dataset, source) for source in job.params.read_sources())
        if not path.exists()
    ]
    if missing:
        return [f"texts, because {missing[0]} is missing (get it too; `dvc repro` would ask the LLM for it)"]
    theirs = read_table(places.texts, TEXTS, ["label", "source", "description"], job.dataset)[0].to_pylist()
    mine = collect_texts(job, classes.names, classes.parameters)
    for one, other in zip(theirs, mine, strict=False):
        if (one["label"], one["source"], one["description"]) != (other.label, other.source, other.description):
            raise Differs(
                f"a text of '{one['source']}' is '{one['description']}' in the folder, '{other.description}' of "
                f"'{other.source}' here"
            )
    if len(theirs) != len(mine):
        raise Differs(f"it has {len(theirs)} texts, here are {len(mine)}")
    return []


def _compare_model(job: Job, found: Gathered) -> None:
    """By identity, not by name or path. The views' precision must agree too, or they would be embedded again."""
    theirs, mine = found.encoder, load_encoder(job.model, job.params).meta
    if not theirs.same_model(mine):
        one, other = theirs.identity(), mine.identity()
        key = next(key for key in one if one[key] != other[key])
        raise Differs(f"the model's {key} is {one[key]!r} in the folder, {other[key]!r} in models.{job.model}")
    if found.views and found.views.precision != mine.precision:
        raise Differs(
            f"its views are in {found.views.precision}, here they would be in {mine.precision}; set `precision: "
            f"{found.views.precision}` in {HERE}"
        )
