"""The command line that the stages of the benchmark share: `python -m stages.finer.<name> [--dataset D] [--lvlm K]`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from stages.common.cli import check_key, parse_job
from stages.common.errors import UserError, nearest
from stages.common.finer_params import Finer
from stages.common.params import Params


@dataclass(frozen=True)
class FinerJob:
    """What a stage was asked to do; `dataset` and `lvlm` are empty where the stage has none."""

    params: Params
    finer: Finer
    dataset: str
    lvlm: str
    """A key of `finer.endpoints` or `finer.served`."""
    options: argparse.Namespace


def parse_finer_job(
    stage: str,
    description: str | None,
    *wanted: str,
    extend: Callable[[argparse.ArgumentParser], None] | None = None,
) -> FinerJob:
    """Parse the command line of `stage` ("finer.unify"); `wanted` are those of "dataset", "lvlm" that it needs.

    Raises:
        UserError: a key that `params.yaml` does not have, or keys of its section `finer` that do not fit the others.
    """

    def add_options(parser: argparse.ArgumentParser) -> None:
        if "lvlm" in wanted:
            parser.add_argument("--lvlm", required=True, help="a key of `finer.endpoints` or `finer.served`")
        if extend:
            extend(parser)

    job = parse_job(stage, description, *(name for name in wanted if name == "dataset"), extend=add_options)
    finer = job.params.finer
    check_finer(job.params)
    lvlm: str = job.options.lvlm if "lvlm" in wanted else ""
    if "dataset" in wanted:
        check_key("finer.datasets", job.dataset, finer.datasets)
    if "lvlm" in wanted:
        check_key("finer.endpoints or finer.served", lvlm, [*finer.endpoints, *finer.served])
    return FinerJob(job.params, finer, job.dataset, lvlm, job.options)


def check_finer(params: Params) -> None:
    """Refuse a section `finer` that names what is not there, or one key for two LVLMs.

    Raises:
        UserError: as above.
    """
    finer = params.finer
    named = [("finer.datasets", key, "datasets", list(params.datasets)) for key in finer.datasets]
    named.append(("finer.encoder", finer.encoder, "models", list(params.models)))
    if finer.mixture.leave_out is not None:
        named.append(("finer.mixture.leave_out", finer.mixture.leave_out, "finer.datasets", list(finer.datasets)))
    for where, key, section, known in named:
        if key not in known:
            raise UserError(
                f"params.yaml: {where} names '{key}', which is not under {section}{nearest(key, known)}; "
                f"there are: {', '.join(known)}"
            )
    both = [key for key in finer.endpoints if key in finer.served]
    if both:
        raise UserError(f"params.yaml: '{both[0]}' is under finer.endpoints and finer.served; rename one")
