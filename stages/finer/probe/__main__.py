"""probe: what the projector of a LLaVA loses -> `data/finer/probe/<lvlm>/<dataset>.json` (FINER, section 5).

An MLP on frozen features before the projector, another one after it, trained alike; both are given the features
standardised by the mean and deviation of the training images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from stages.common.cli import check_key
from stages.common.errors import run
from stages.finer import paths
from stages.finer.cli import parse_finer_job
from stages.finer.probe.measure import is_llava, probe_lvlm


def main() -> None:
    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--lvlm", help="a key of `finer.served` in params.yaml; all of them where left out")

    job = parse_finer_job("finer.probe", __doc__, extend=add_options)
    wanted: str | None = job.options.lvlm
    if wanted is not None:
        check_key("finer.endpoints or finer.served", wanted, [*job.finer.endpoints, *job.finer.served])
    paths.PROBE.mkdir(parents=True, exist_ok=True)
    for stale in paths.PROBE.glob("*/*.json"):
        if stale.parent.name not in job.finer.served or stale.stem not in job.finer.datasets:
            stale.unlink()
    for lvlm in [wanted] if wanted else job.finer.served:
        if wanted is None and not is_llava(Path(job.finer.served[lvlm])):
            print(f"probe: {lvlm} is left out, which is not of the LLaVA architecture")
            continue
        for line in probe_lvlm(job, lvlm):
            print(line, flush=True)


if __name__ == "__main__":
    run(main)
