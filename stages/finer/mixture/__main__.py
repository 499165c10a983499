"""finer.mixture: training images, labels and attributes -> conversations to tune an LVLM on, `data/finer/mixture/`.

FINER (arXiv 2402.16315, section 5): `attributes` has three turns for each image, `direct` is the single-turn
baseline on the same images. Each is written as LLaVA's JSON and as a Parquet table of chat messages.
"""

from __future__ import annotations

from stages.common.errors import run
from stages.finer.cli import parse_finer_job
from stages.finer.mixture.write import write_mixture


def main() -> None:
    print(write_mixture(parse_finer_job("finer.mixture", __doc__)))


if __name__ == "__main__":
    run(main)
