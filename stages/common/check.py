"""Checks that cost nothing, before a run or a paid request: `python -m stages.common.check`"""

from __future__ import annotations

from pathlib import Path

from stages.common.errors import UserError, run, warn
from stages.common.experiments import untracked_descriptions
from stages.common.params import Params, Report, Score, load_params
from stages.common.paths import DATA, prompt_source


def check_roots(params: Params) -> None:
    """Refuse a data set whose root is missing, before DVC does so in a message that is harder to read.

    Raises:
        UserError: as above. Roots under `data/` are made by the pipeline.
    """
    for key, entry in params.datasets.items():
        root = Path(entry.root)
        if not root.is_dir() and DATA not in root.parents:
            raise UserError(
                f"datasets.{key}.root '{root}' does not exist; correct it in params.yaml, put the images there, or for "
                f"a reader that downloads (↓ in stages/ingest/README.md), set ingest.download: true and run "
                f"`python -m stages.ingest --dataset {key}`"
            )


def check_models(params: Params) -> None:
    """Refuse a model that cannot be loaded, as far as that shows without reading weights.

    Raises:
        UserError: a name or tag that open_clip does not know, or a checkpoint that is missing or not described.
    """
    if not params.models:
        return
    from stages.common.checkpoints import check_entry  # open_clip and torch take seconds to load

    for key, entry in params.models.items():
        if not entry.name.startswith("hf-hub:"):  # whose configuration would have to be fetched
            check_entry(f"models.{key}", entry)


def check_prompts(params: Params) -> None:
    """Refuse a source without a prompt file, which DVC needs even if the descriptions exist.

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


def check_methods(params: Params) -> None:
    """Refuse an unknown method before the stages run.

    Raises:
        UserError: as `require_method`.
    """
    named = {"report.reference": params.report.reference, "score.csv_method": params.score.csv_method}
    for key in params.datasets:
        named[f"datasets.{key}.score.csv_method"] = params.for_dataset(key).score.csv_method
    usual = (Report.model_fields["reference"].default, Score().csv_method)
    for key, method in named.items():
        if method not in usual:
            # Only here, because stages that check this do not depend on the methods otherwise.
            from stages.common.methods import require_method

            require_method(key, method)


def warn_of_untracked() -> None:
    """Warn about description files that git does not track, because experiments in copies of the project lack them."""
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
    check_models(params)
    check_methods(params)
    warn_of_untracked()


if __name__ == "__main__":
    run(main)
