"""Before a run: is `params.yaml` right, and is every data set where it says? `python -m stages.common.check`"""

from __future__ import annotations

from pathlib import Path

from stages.common.errors import UserError, run, warn
from stages.common.experiments import untracked_descriptions
from stages.common.params import Params, load_params
from stages.common.paths import DATA, prompt_source


def check_roots(params: Params) -> None:
    """Refuse a data set whose root is missing, before DVC says so in its own words.

    Raises:
        UserError: as above; roots under `data/` are the pipeline's own to make.
    """
    for key, entry in params.datasets.items():
        root = Path(entry.root)
        if not root.is_dir() and DATA not in root.parents:
            raise UserError(
                f"datasets.{key}.root '{root}' does not exist; correct it in params.yaml, put the images there, or "
                f"with ingest.download: true let `python -m stages.ingest --dataset {key}` fetch them"
            )


def check_prompts(params: Params) -> None:
    """Refuse a source without a prompt file, which DVC wants even where the descriptions are there.

    Raises:
        UserError: as above.
    """
    for source in params.sources:
        path = prompt_source(source)
        if not path.is_file():
            raise UserError(
                f"sources.{source} has no {path}; write one, or a line `paper: <origin>` in it where the descriptions "
                "are files of your own"
            )


def warn_of_untracked() -> None:
    """Warn of description files that experiments in folders of their own will not have."""
    names = untracked_descriptions()
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        warn(
            f"git does not track {', '.join(names[:3])}{more}, which `dvc exp run --temp` and `--queue` need; run "
            "`git add -f descriptions` and `git commit -m descriptions`"
        )


def main() -> None:
    params = load_params()
    check_roots(params)
    check_prompts(params)
    warn_of_untracked()


if __name__ == "__main__":
    run(main)
