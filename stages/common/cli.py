"""The command line that all stages share: `python -m stages.<name> --dataset D [--model M] [--source S]`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from stages.common.errors import UserError, nearest
from stages.common.locks import hold
from stages.common.params import Params, load_params


@dataclass(frozen=True)
class Job:
    """What a stage was asked to do: the parameters and the keys given on the command line."""

    params: Params
    """With the overrides of the data set's entry, if one is given."""
    dataset: str
    model: str
    source: str
    options: argparse.Namespace


def parse_job(
    stage: str,
    description: str | None,
    *wanted: str,
    extend: Callable[[argparse.ArgumentParser], None] | None = None,
    load: Callable[[], Params] = load_params,
    locks_itself: bool = False,
) -> Job:
    """Parse the command line of `stage`; `wanted` are those of "dataset", "model", "source" that it needs.

    Then lock the stage for these keys, unless it `locks_itself`: two runs would write the same files.

    `extend` may add options of the stage's own; they are in `Job.options`. `load` reads
    the parameters.

    Raises:
        UserError: a key that `params.yaml` does not have, or another run of the same stage and keys is under way.
    """
    parser = argparse.ArgumentParser(prog=f"python -m stages.{stage}", description=description)
    for name in wanted:
        parser.add_argument(f"--{name}", required=True, help=f"a key of `{name}s` in params.yaml")
    if extend:
        extend(parser)
    arguments = parser.parse_args()
    params = load()
    keys = {"dataset": "", "model": "", "source": ""}
    for name in wanted:
        keys[name] = getattr(arguments, name)
        check_key(f"{name}s", keys[name], getattr(params, f"{name}s"))
    if not locks_itself:
        hold(stage, *filter(None, keys.values()))
    if keys["dataset"]:
        params = params.for_dataset(keys["dataset"])
    return Job(params, keys["dataset"], keys["model"], keys["source"], arguments)


def check_key(section: str, key: str, known: Iterable[str]) -> None:
    names = list(known)
    if key not in names:
        raise UserError(
            f"params.yaml has no '{key}' under {section}{nearest(key, names)}; there are: {', '.join(names)}"
        )
