"""align: the method `attrseek`, a row beside `bifta`: images classified by the attributes that an LVLM sees in them."""

from __future__ import annotations

from stages.common.errors import run
from stages.common.settings import write_settings
from stages.finer.align.attrseek import align_dataset
from stages.finer.cli import parse_finer_job


def main() -> None:
    job = parse_finer_job("finer.align", __doc__, "dataset")
    write_settings(job.params, job.dataset, "score")
    for line in align_dataset(job, job.finer.encoder):
        print(line)


if __name__ == "__main__":
    run(main)
