"""ingest.unpack: unpack the archives of a data set again, for stages that need its images. Writes no tables."""

from __future__ import annotations

from stages.common.cli import parse_job
from stages.common.errors import UserError, run
from stages.common.locks import hold
from stages.ingest.dataset import find_reader, read_listing


def main() -> None:
    job = parse_job("ingest.unpack", __doc__, "dataset", locks_itself=True)
    hold("ingest", job.dataset, wait=True)  # several stages may need the images at once; the first unpacks them
    entry = job.params.datasets[job.dataset]
    listing = read_listing(job.dataset, entry, find_reader(job.dataset, entry), download=False)
    if listing.root is None:
        raise UserError(f"datasets.{job.dataset}: the reader '{entry.reader}' has no archives to unpack")
    print(f"ingest.unpack {job.dataset}: {len(listing.images)} images in {listing.root}")


if __name__ == "__main__":
    run(main)
