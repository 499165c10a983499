"""Folders of experiments: `dvc exp run --temp` and `--queue` run in a copy of the project that has only what git
tracks. A description file that git does not track is missing there. Asking for it again would cost money and replace
the user's
sentences by an LLM's.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection
from pathlib import Path

from stages.common.errors import UserError
from stages.common.paths import DESCRIPTIONS
from stages.common.responses import sha256

_FOLDER = Path(".dvc", "tmp", "exps")


def workspace() -> Path | None:
    """The project's own folder if the present one is an experiment's copy, otherwise None."""
    here = Path.cwd()
    root = os.environ.get("DVC_ROOT")  # set by DVC for what it runs: the project's own folder in experiments as well
    if root and (Path(root) / _FOLDER).resolve() in here.parents:
        return Path(root)
    copies = [parent for parent in here.parents if parent.parts[-3:] == _FOLDER.parts]
    return copies[0].parents[2] if copies else None


def check_asking(target: Path, *, asks: bool, wrote: Collection[str], allowed: bool, key: str) -> None:
    """Refuse to make a description file in an experiment's folder where that costs money or replaces the user's own.

    Args:
        target: the file, relative to the project's folder.
        asks: whether answers are missing to make it of.
        wrote: SHA-256 of the contents that the stage wrote; anything else at `target` is the user's.
        allowed: whether the user lets experiments ask.
        key: of params.yaml, by which the user says so.

    Raises:
        UserError: as above, unless `allowed`.
    """
    project = workspace()
    if project is None or allowed:
        return
    absent = not target.exists() and (project / target).exists()
    if not asks and not (absent and sha256((project / target).read_bytes()) not in wrote):
        return
    if absent:
        why = f"{target} is not in this experiment's folder, because git does not track it"
        first = ""
    else:
        why = f"{target} is missing or out of date, and experiments do not ask for it, which would cost money each time"
        first = "`dvc repro` and then "
    raise UserError(
        f"{why}: in the project's folder run {first}`git add -f {target.parent}` and `git commit -m descriptions`, and "
        f"the experiment again; or add `-S {key}=true` to have experiments ask"
    )


def untracked_descriptions() -> list[str]:
    """Files under `descriptions/` that git does not track, ignored ones included; none where there is no git."""
    command = ["git", "ls-files", "--others", "-z", "--", DESCRIPTIONS.as_posix()]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        return []
    names = [os.fsdecode(name) for name in done.stdout.split(b"\0")] if done.returncode == 0 else []
    return [name for name in names if name.endswith((".json", ".jsonl", ".yaml"))]
