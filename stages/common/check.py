"""Before a run: is `params.yaml` right, and is every data set where it says? `python -m stages.common.check`"""

from __future__ import annotations

from pathlib import Path

from stages.common.errors import UserError, run
from stages.common.params import Params, load_params
from stages.common.paths import DATA


def check_roots(params: Params) -> None:
    """Refuse a data set whose root is missing, before DVC says so in its own words.

    Raises:
        UserError: as above; roots under `data/` are the pipeline's own to make.
    """
    for key, entry in params.datasets.items():
        root = Path(entry.root)
        if not root.is_dir() and DATA not in root.parents:
            raise UserError(
                f"datasets.{key}.root '{root}' does not exist; correct it in params.yaml or put the images there"
            )


def main() -> None:
    check_roots(load_params())


if __name__ == "__main__":
    run(main)
