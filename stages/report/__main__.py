"""Write tables, plots and pictures of one data set and model; without arguments, print all that was computed."""

from __future__ import annotations

import sys

from stages.common import paths
from stages.common.artifacts import PredictionsParameters
from stages.common.cli import parse_job
from stages.common.errors import run
from stages.common.params import load_params
from stages.common.settings import write_settings
from stages.report.summary import say_where, summary
from stages.report.table import plain


def main() -> None:
    if len(sys.argv) == 1:
        summary(load_params())
        return
    job = parse_job("report", __doc__, "dataset", "model")
    # Drawing needs libraries that take seconds to load; the summary does without.
    from stages.report.write import write_report

    write_settings(job.params, job.dataset, "score")
    asked = PredictionsParameters(seed=job.params.seed, **job.params.score.model_dump())
    root = job.params.datasets[job.dataset].root
    result = write_report(job.dataset, job.model, job.params.report.pictures, root, asked)
    print(plain(result))
    say_where(paths.report(job.dataset, job.model))


if __name__ == "__main__":
    run(main)
