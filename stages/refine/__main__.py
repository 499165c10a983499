"""refine: `descriptions/<dataset>/<source>.json` -> `data/<dataset>/<model>/texts.parquet`, one row for each text."""

from __future__ import annotations

from stages.common.cli import parse_job
from stages.common.errors import run
from stages.common.settings import write_settings
from stages.refine.dataset import refine_dataset


def main() -> None:
    job = parse_job("refine", __doc__, "dataset", "model")
    write_settings(job.params, job.dataset, "sources", "refine")
    for line in refine_dataset(job):
        print(line)


if __name__ == "__main__":
    run(main)
