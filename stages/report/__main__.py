"""Write tables, plots and pictures of one data set and model; without arguments, print all that was computed."""

from __future__ import annotations

import sys

from stages.common import paths
from stages.common.artifacts import PredictionsParameters
from stages.common.cli import parse_job
from stages.common.errors import run
from stages.common.labels import read_classes, read_labels
from stages.common.methods import require_method
from stages.common.params import load_params
from stages.common.settings import write_settings
from stages.report import certainty
from stages.report.printing import print_all, say_where
from stages.report.table import plain


def main() -> None:
    if len(sys.argv) == 1:
        print_all(load_params())
        return
    job = parse_job("report", __doc__, "dataset", "model")
    # Drawing needs libraries that take seconds to load; printing does without.
    from stages.report.unlabelled import write_unlabelled
    from stages.report.write import write_report

    write_settings(job.params, job.dataset, "score")
    require_method("report.reference", job.params.report.reference)
    asked = PredictionsParameters(seed=job.params.seed, **job.params.score.model_dump())
    root = job.params.datasets[job.dataset].root
    arguments = (job.dataset, job.model, job.params.report.pictures, root, asked)
    if read_labels(job.dataset, read_classes(job.dataset), optional=True).known:
        print(plain(write_report(*arguments, job.params.report.reference)))
    else:
        print(certainty.plain(write_unlabelled(*arguments)))
    say_where(paths.report(job.dataset, job.model))


if __name__ == "__main__":
    run(main)
