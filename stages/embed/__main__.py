"""embed: images and `boxes.parquet` -> `data/<dataset>/<model>/views/part-*.parquet`, one row for each view.

A shard that was made from the same images, boxes and model is kept, so an interrupted run continues after its last
whole shard. Rows of other shards are used again if they show a wanted view.
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout

from stages.common.cli import parse_job
from stages.common.encoders import load_encoder
from stages.common.errors import run
from stages.embed.dataset import embed_dataset, embed_here


def main() -> None:
    job = parse_job("embed", __doc__, "dataset", "model")
    if job.params.embed.engine == "ray":
        from stages.embed.cluster import Cluster

        # Ray writes about lost nodes to standard output, which is for this stage's own line.
        with redirect_stdout(io.StringIO()), Cluster(job) as cluster:
            line = embed_dataset(job, cluster.model, cluster.embed)
        print(line)
        return
    encoder = load_encoder(job.model, job.params)
    print(embed_dataset(job, encoder.meta, embed_here(job, encoder)))


if __name__ == "__main__":
    run(main)
