"""Checks that cost nothing, before the first request that does."""

from __future__ import annotations

from collections.abc import Sequence

from stages.common import paths
from stages.common.check import check_methods, check_models, check_prompts, check_roots
from stages.common.descriptions import read_descriptions
from stages.common.params import load_params
from stages.describe.plan import make_plan
from stages.describe.prompts import load_source


def check_before_paying(dataset: str, sources: Sequence[str]) -> None:
    """If an answer is missing, check what the whole run needs: all data sets, models and sources.

    Args:
        sources: those that `describe` is about to make.

    Raises:
        UserError: something that a later stage, or a later source, would refuse.
    """
    params = load_params()
    plans = [make_plan(dataset, source, params.describe) for source in sources]
    if not any(plan.missing() for plan in plans):
        return
    check_roots(params)
    check_prompts(params)
    for key in params.datasets:
        for source in params.for_dataset(key).sources:
            if paths.descriptions(key, source).exists():
                read_descriptions(paths.descriptions(key, source))
            else:
                load_source(paths.prompt_source(source))
    check_methods(params)
    check_models(params)
