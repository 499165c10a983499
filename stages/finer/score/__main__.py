"""score: `data/finer/answers/<lvlm>/<dataset>.parquet` -> `data/finer/scores.parquet` and `metrics.json`."""

from __future__ import annotations

from stages.common.errors import run
from stages.finer.cli import parse_finer_job
from stages.finer.score.lvlms import score_lvlms


def main() -> None:
    for line in score_lvlms(parse_finer_job("finer.score", __doc__).params):
        print(line, flush=True)


if __name__ == "__main__":
    run(main)
