"""What checking costs a reader: `python -m benchmarks.checked_reading`.

Reads shards of random views (512 images x 101 views x 512 dimensions) in turns: with pyarrow alone, with the digests of
the columns compared, and with the rows checked as well, as every stage reads them.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.common import print_table, ratio, record, side_by_side
from benchmarks.score_at_size import CROPS, DATASET, DIMENSIONS, MODEL, write_data, write_params
from stages.common import paths
from stages.common.artifacts import VIEWS
from stages.common.tables import open_table
from stages.common.views import shard_paths

IMAGES, REPEATS = 512, 15
PLAIN, DIGESTS, CHECKED = "pyarrow alone", "digests compared", "rows checked as well"


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="checked-reading-") as name:
        folder = Path(name)
        write_data(folder, write_params(folder), IMAGES)
        shards = shard_paths(folder / paths.views(DATASET, MODEL))
        digests_alone = replace(VIEWS, check=None)

        def each(read: Callable[[Path], pa.Table]) -> Callable[[], object]:
            return lambda: [read(path).num_rows for path in shards]

        works = {
            PLAIN: each(lambda path: pq.ParquetFile(path, memory_map=True).read()),
            DIGESTS: each(lambda path: open_table(path, digests_alone).read()),
            CHECKED: each(lambda path: open_table(path, VIEWS).read()),
        }
        times = side_by_side(works, REPEATS)
    ratios = {name: ratio(found, times[PLAIN]) for name, found in times.items()}
    print_table(
        f"{len(shards)} shards of {IMAGES // len(shards)} images x {1 + CROPS} views x {DIMENSIONS}; {REPEATS} turns",
        ["", "median ms an image", "of pyarrow alone"],
        [
            (name, f"{1000 * statistics.median(found) / IMAGES:.3f}", f"{ratios[name]:.3f}")
            for name, found in times.items()
        ],
    )
    headline = {"digests_over_read": round(ratios[DIGESTS], 3), "checks_over_read": round(ratios[CHECKED], 3)}
    record("checked_reading", headline, {"seconds": {name: [round(s, 4) for s in t] for name, t in times.items()}})


if __name__ == "__main__":
    main()
