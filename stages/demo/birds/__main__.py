"""draw: the demo's birds -> `data/demo/images/<species>/*.jpg`."""

from __future__ import annotations

from stages.common.cli import parse_job
from stages.common.errors import run
from stages.common.paths import DATA
from stages.demo.birds.draw import write_images


def main() -> None:
    demo = parse_job("demo.birds", __doc__).params.demo
    write_images(DATA / "demo" / "images", demo.seed, demo.images_per_class)


if __name__ == "__main__":
    run(main)
