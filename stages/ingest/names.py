"""ingest.names: the classes that a data set's reader finds, as JSON [[name, superordinate], ...]. Writes no table."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout

from stages.common.cli import parse_job
from stages.common.errors import run
from stages.ingest.dataset import find_reader, read_listing
from stages.ingest.tables import classes_table


def main() -> None:
    job = parse_job("ingest.names", __doc__, "dataset", locks_itself=True)
    entry = job.params.datasets[job.dataset]
    with redirect_stdout(sys.stderr):
        listing = read_listing(job.dataset, entry, find_reader(job.dataset, entry), download=False)
    rows = classes_table(listing).select(["name", "superordinate"]).to_pylist()
    print(json.dumps([list(row.values()) for row in rows]))


if __name__ == "__main__":
    run(main)
