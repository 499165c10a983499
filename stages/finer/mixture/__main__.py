"""finer.mixture: training images, labels and attributes -> conversations to tune an LVLM on, `data/finer/mixture/`.

FINER (arXiv 2402.16315, section 5): `attributes` has three turns an image, `direct` is the single-turn baseline on the
same images. Each is written as LLaVA's JSON and as a Parquet table of chat messages.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from stages.common.errors import run
from stages.common.tables import make_meta, write_json, write_table
from stages.finer import paths
from stages.finer.cli import parse_finer_job
from stages.finer.mixture.build import ATTRIBUTES, CLASSES, collect, shuffled
from stages.finer.mixture.conversations import (
    CHAT,
    chat_row,
    read_mix,
)


def main() -> None:
    job = parse_finer_job("finer.mixture", __doc__)
    seed, settings = job.params.seed, job.finer.mixture
    entries, parts = collect(seed, job.finer)
    made = len(entries[ATTRIBUTES])
    appended = read_mix(Path(settings.append)) if settings.append is not None else []
    made_by = {"seed": seed, "datasets": list(job.finer.datasets), **settings.model_dump()}
    for kind, own in entries.items():
        mixed = shuffled(seed, kind, [*own, *appended])
        write_json(paths.MIXTURE / f"{kind}.json", mixed)
        table = pa.Table.from_pylist([chat_row(entry) for entry in mixed], schema=CHAT)
        meta = make_meta("mixture", "finer", parameters={"kind": kind, **made_by})
        write_table(paths.MIXTURE / f"{kind}.parquet", table, meta)
    write_json(paths.MIXTURE / CLASSES, parts)
    added = f" and {len(appended)} of {settings.append}" if settings.append is not None else ""
    count = sum(len(own["held_out"]) for own in parts.values())
    print(f"finer.mixture: {made} conversations{added}, {count} classes held out")


if __name__ == "__main__":
    run(main)
