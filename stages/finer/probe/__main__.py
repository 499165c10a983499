"""probe: what the projector of a LLaVA loses -> `data/finer/probe/<lvlm>/<dataset>.json` (FINER, section 5).

An MLP is trained on frozen features before the projector, and another one in the same way on those after it. Features
are standardised by the mean and deviation of the training images.
"""

from __future__ import annotations

import argparse

from stages.common.cli import check_key
from stages.common.errors import run
from stages.finer.cli import parse_finer_job
from stages.finer.probe.lvlms import probe_lvlms


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lvlm", help="a key of `finer.served` in params.yaml; all of them where left out")


def main() -> None:
    job = parse_finer_job("finer.probe", __doc__, extend=add_options)
    lvlm: str | None = job.options.lvlm
    if lvlm is not None:
        check_key("finer.endpoints or finer.served", lvlm, [*job.finer.endpoints, *job.finer.served])
    for line in probe_lvlms(job, lvlm):
        print(line, flush=True)


if __name__ == "__main__":
    run(main)
