"""tune: LoRA on a LLaVA-architecture model with a mixture -> `data/finer/models/tuned`, a merged, plain checkpoint.

The trainer is that of `transformers`. An interrupted run continues from its last whole checkpoint.
"""

from __future__ import annotations

import warnings

from stages.common.errors import run
from stages.finer import paths
from stages.finer.cli import parse_finer_job
from stages.finer.tune.train import tune_model


def main() -> None:
    params = parse_finer_job("finer.tune", __doc__).params
    with warnings.catch_warnings():
        # About the library's own code, not about the program.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")
        print(tune_model(params, paths.MODELS / "tuned"))


if __name__ == "__main__":
    run(main)
