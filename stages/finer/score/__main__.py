"""score: `data/finer/answers/<lvlm>/<dataset>.parquet` -> `data/finer/scores.parquet` and `metrics.json`."""

from __future__ import annotations

import argparse

from stages.common.errors import run
from stages.finer.params import load_finer_params
from stages.finer.score.lvlms import score_lvlms


def main() -> None:
    argparse.ArgumentParser(prog="python -m stages.finer.score", description=__doc__).parse_args()
    for line in score_lvlms(load_finer_params()):
        print(line, flush=True)


if __name__ == "__main__":
    run(main)
