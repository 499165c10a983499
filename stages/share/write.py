"""Writing the folder: the tables as they are, and a card that says how to load them."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath
from typing import Any

from stages.common.artifacts import PREDICTIONS, TEXTS, VIEWS, Artifact, is_machine_path
from stages.common.digests import ALL, COLUMNS
from stages.common.errors import UserError
from stages.common.files import link_or_copy, replacing_folder
from stages.common.tables import open_table, write_table, write_text
from stages.share.card import LICENSE, card
from stages.share.gather import Gathered, Places, gather, hold_stages

OF_A_MODEL: dict[str, Artifact[Any]] = {"texts": TEXTS, "views": VIEWS, "predictions": PREDICTIONS}


def share(dataset: str, model: str, out: Path) -> str:
    """Write the folder, whole or not at all; returns the line to print.

    Raises:
        UserError: `out` has something in it, or the tables are damaged or do not belong together.
    """
    hold_stages(dataset, model)
    target = _free(out)
    found = gather(dataset, Places.of_project(dataset, model))
    templates = found.classes.parameters.templates
    if isinstance(templates, str) and is_machine_path(templates):
        raise UserError(
            f"{found.classes.path} names the file {templates} of this machine; move it to descriptions/{dataset}, "
            f"write `templates: {PureWindowsPath(templates).name}` in params.yaml and run `dvc repro`"
        )
    with replacing_folder(target) as folder:
        for table in found.tables:
            for source, place in zip(table.files, table.in_folder, strict=True):
                (folder / place).parent.mkdir(exist_ok=True)
                _put(source, folder / place, OF_A_MODEL.get(table.name))
        write_text(folder / "LICENSE", LICENSE)
        write_text(folder / "README.md", card(found, found.encoder.shareable()))
    return f"share {dataset} {model}: {_counts(found)} in {out}; choose a licence in its README.md"


def _free(out: Path) -> Path:
    """Where to write; a symbolic link to an empty folder is followed.

    Raises:
        UserError: something is there.
    """
    target = out.resolve()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UserError(f"'{out}' is not an empty folder; name a new one")
    return target


def _put(source: Path, target: Path, artifact: Artifact[Any] | None) -> None:
    """The file as it is. Only if its notes name a path of this machine is it written again, without that path."""
    if artifact:
        opened = open_table(source, artifact)
        meta = opened.meta.model_copy(update={"model": opened.meta.encoder().shareable()})
        if meta != opened.meta:
            others = {name: value for name, value in opened.digests.items() if name not in (COLUMNS, ALL)}
            write_table(target, opened.read(), meta, **others)
            return
    link_or_copy(source, target)


def _counts(found: Gathered) -> str:
    return ", ".join(
        f"{table.rows} {'rows of ' if table.name == 'skipped' else ''}{table.name}" for table in found.tables
    )
