"""share: the artifacts of a data set and model -> a folder that is a Hugging Face dataset."""

from __future__ import annotations

import argparse
from pathlib import Path

from stages.common.cli import parse_job
from stages.common.errors import run
from stages.share.write import share


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write, new or empty")


def main() -> None:
    job = parse_job("share", __doc__, "dataset", "model", extend=_options, locks_itself=True)
    print(share(job.dataset, job.model, job.options.out))


if __name__ == "__main__":
    run(main)
