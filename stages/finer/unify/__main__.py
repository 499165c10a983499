"""finer.unify: `images.parquet` and `classes.parquet` -> `unified-<dataset>-{train,test}-combined.jsonl`."""

from __future__ import annotations

from stages.common.errors import run
from stages.finer.cli import parse_finer_job
from stages.finer.unify.write import unify_dataset


def main() -> None:
    print(unify_dataset(parse_finer_job("finer.unify", __doc__, "dataset")))


if __name__ == "__main__":
    run(main)
