"""score: `texts.parquet` and the shards of views -> `predictions.parquet` and `metrics.json`.

All methods and runs are scored in one pass over the shards, on a GPU if there is one.
"""

from __future__ import annotations

import os

import torch

from stages.common.cli import parse_job
from stages.common.errors import run
from stages.common.settings import write_settings
from stages.score.dataset import score_dataset


def main() -> None:
    job = parse_job("score", __doc__, "dataset", "model")
    write_settings(job.params, job.dataset, "score")
    # One core is left for reading: if one thread of the arithmetic has to wait for a core, all of them wait.
    torch.set_num_threads(min(torch.get_num_threads(), max(1, (os.cpu_count() or 1) - 1)))
    for line in score_dataset(job):
        print(line)


if __name__ == "__main__":
    run(main)
