"""share: the artifacts of a data set and model -> a folder that is a Hugging Face dataset, and back."""

from __future__ import annotations

import argparse
from pathlib import Path

from stages.common.cli import parse_job
from stages.common.errors import run
from stages.share.belongs import check
from stages.share.place import import_folder
from stages.share.write import share


def _options(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("out", metavar="OUT", nargs="?", type=Path, help="the folder to write, new or empty")
    what.add_argument("--check", metavar="FOLDER", type=Path, help="say whether a folder belongs to params.yaml")
    what.add_argument(
        "--import", metavar="FOLDER", type=Path, dest="source", help="put the tables of a folder that belongs in place"
    )


def main() -> None:
    job = parse_job("share", __doc__, "dataset", "model", extend=_options, locks_itself=True)
    if job.options.check:
        print(check(job, job.options.check))
    elif job.options.source:
        print(import_folder(job, job.options.source))
    else:
        print(share(job.dataset, job.model, job.options.out))


if __name__ == "__main__":
    run(main)
