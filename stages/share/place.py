"""Putting the tables of a shared folder where the stages of this project look for them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.common.artifacts import BOXES, TEXTS, VIEWS, Artifact
from stages.common.cli import Job
from stages.common.digests import COLUMNS
from stages.common.errors import UserError
from stages.common.files import replacing
from stages.common.tables import open_table
from stages.common.views import shard_paths
from stages.share.belongs import not_compared, read_folder
from stages.share.gather import Gathered, Places, hold_stages

COMPARED = ("classes", "images", "skipped")
"""Tables of `ingest`. If they are here, the folder's were compared with them, and they stay."""
MADE: dict[str, Artifact[Any]] = {"boxes": BOXES, "texts": TEXTS, "views": VIEWS}


def import_folder(job: Job, folder: Path) -> str:
    """Copy the tables of a folder that belongs here; returns the line to print. What is here is not overwritten.

    Predictions are left out: `score` makes them in seconds, with the metrics that belong to them.

    Raises:
        UserError: the folder does not belong here, or something else is in the place of its tables.
    """
    hold_stages(job.dataset, job.model)
    found, unknown = read_folder(job, folder)
    places = Places.of_project(job.dataset, job.model)
    new = list(_missing(found, places))
    for source, target in new:
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
    there = "" if new else ", all of which were there"
    return (
        f"share {job.dataset} {job.model}: {len(new)} files imported from {folder}{there}; now run `dvc repro`"
        f"{not_compared(unknown)}"
    )


def _missing(found: Gathered, places: Places) -> Iterator[tuple[Path, Path]]:
    """The files to copy, and where to.

    Raises:
        UserError: another table is there.
    """
    _refuse_other_shards(found, places.views)
    for table in found.tables:
        if table.name == "predictions":
            continue
        for source in table.files:
            target = places.views / source.name if table.name == "views" else getattr(places, table.name)
            if not target.exists():
                yield source, target
            elif table.name not in COMPARED and not _is_same(source, target, MADE[table.name]):
                _refuse(places.views if table.name == "views" else target)


def _refuse_other_shards(found: Gathered, views: Path) -> None:
    """Refuse shards that the folder does not have."""
    theirs = {path.name for table in found.tables if table.name == "views" for path in table.files}
    if theirs and not {path.name for path in shard_paths(views)} <= theirs:
        _refuse(views)


def _refuse(path: Path) -> None:
    raise UserError(f"{path} is there and differs from the folder's; move it away to use the folder's instead")


def _is_same(one: Path, other: Path, artifact: Artifact[Any]) -> bool:
    """Whether two files hold the same rows made from the same. Notes on where a model came from do not count."""
    try:
        mine, theirs = open_table(one, artifact), open_table(other, artifact)
    except UserError:  # something else, or damaged
        return False
    metas = [table.meta.without_notes() if artifact.by_model else table.meta for table in (mine, theirs)]
    return metas[0] == metas[1] and mine.digests[COLUMNS] == theirs.digests[COLUMNS]
