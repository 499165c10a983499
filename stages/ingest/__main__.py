"""ingest: a data set on disk -> `data/<dataset>/images.parquet`, `classes.parquet` and `skipped.parquet`."""

from __future__ import annotations

from stages.common.cli import parse_job
from stages.common.errors import run
from stages.ingest.write import ingest_dataset


def main() -> None:
    job = parse_job("ingest", __doc__, "dataset")
    print(ingest_dataset(job.params, job.dataset))


if __name__ == "__main__":
    run(main)
