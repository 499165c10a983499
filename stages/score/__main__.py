"""score: `texts.parquet` and the shards of views -> `predictions.parquet` and `metrics.json`.

All methods and runs are scored in one pass over the shards, on a GPU if there is one.
"""

from __future__ import annotations

from stages.common.cli import parse_job
from stages.common.errors import run
from stages.common.settings import write_settings
from stages.score.dataset import score_dataset


def main() -> None:
    job = parse_job("score", __doc__, "dataset", "model")
    write_settings(job.params, job.dataset, "score")
    for line in score_dataset(job):
        print(line)


if __name__ == "__main__":
    run(main)
