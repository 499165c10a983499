"""The command line that the stages of the benchmark share: `python -m stages.finer.<name> [--dataset D] [--lvlm K]`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from stages.common.cli import check_key, parse_job
from stages.common.locks import hold
from stages.finer.params import Finer, FinerParams, load_finer_params


@dataclass(frozen=True)
class FinerJob:
    """The parsed command line of a stage; `dataset` and `lvlm` are empty if the stage has no such option."""

    params: FinerParams
    dataset: str
    lvlm: str
    """A key of `finer.endpoints` or `finer.served`."""
    options: argparse.Namespace

    @property
    def finer(self) -> Finer:
        return self.params.finer


def parse_finer_job(
    stage: str,
    description: str | None,
    *wanted: str,
    extend: Callable[[argparse.ArgumentParser], None] | None = None,
) -> FinerJob:
    """Parse the command line of `stage` ("finer.unify"); `wanted` is what it needs of "dataset" and "lvlm".

    Raises:
        UserError: a key that `params.yaml` does not have, keys of its section `finer` that do not fit the others, or
            another run of the same stage and keys is under way.
    """

    def add_options(parser: argparse.ArgumentParser) -> None:
        if "lvlm" in wanted:
            parser.add_argument("--lvlm", required=True, help="a key of `finer.endpoints` or `finer.served`")
        if extend:
            extend(parser)

    job = parse_job(
        stage,
        description,
        *(name for name in wanted if name == "dataset"),
        extend=add_options,
        load=load_finer_params,
        locks_itself=True,
    )
    assert isinstance(job.params, FinerParams)
    finer = job.params.finer
    lvlm: str = job.options.lvlm if "lvlm" in wanted else ""
    if "dataset" in wanted:
        check_key("finer.datasets", job.dataset, finer.datasets)
    if "lvlm" in wanted:
        check_key("finer.endpoints or finer.served", lvlm, [*finer.endpoints, *finer.served])
    hold(stage, *filter(None, (job.dataset, lvlm)))
    return FinerJob(job.params, job.dataset, lvlm, job.options)
