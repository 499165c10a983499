"""align: the method `attrseek`, a row beside `bifta`: the attributes that an LVLM sees in an image, embedded and
aligned with the descriptions of the classes as crops are.

An image's attributes are its views: weighted by their cosine to the whole image, summed, and compared with the weighted
sum of each class's refined descriptions (arXiv 2406.02915, 2601.20419). They are those of ATTRSEEK's first turn at the
superordinate level (arXiv 2402.16315), where the question tells nothing of the class.
"""

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
