"""crop: `images.parquet` -> `data/<dataset>/boxes.parquet`, one row for each candidate crop."""

from __future__ import annotations

from stages.common.cli import parse_job
from stages.common.errors import run
from stages.common.settings import write_settings
from stages.crop.dataset import crop_dataset


def main() -> None:
    job = parse_job("crop", __doc__, "dataset")
    write_settings(job.params, job.dataset, "crop")
    print(crop_dataset(job.dataset, job.params.crop, job.params.seed))


if __name__ == "__main__":
    run(main)
