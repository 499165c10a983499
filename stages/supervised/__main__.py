"""supervised: the views of a data set and of its train split -> `data/<dataset>/<model>/supervised.json`.

A k-nearest-neighbour classifier and a linear probe on the frozen encoder's embeddings. They learn from labelled images,
so they are not zero-shot.
"""

from __future__ import annotations

import argparse

from stages.common.cli import check_key, parse_job
from stages.common.errors import run
from stages.supervised.dataset import supervised_dataset


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--train", required=True, help="the key of `datasets` in params.yaml that is the train split")


def main() -> None:
    job = parse_job("supervised", __doc__, "dataset", "model", extend=add_options)
    check_key("datasets", job.options.train, job.params.datasets)
    for line in supervised_dataset(job, job.options.train):
        print(line)


if __name__ == "__main__":
    run(main)
