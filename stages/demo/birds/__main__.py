"""draw: the demo's birds -> `data/demo/images/<species>/*.jpg`."""

from __future__ import annotations

import argparse

from stages.common.errors import run
from stages.common.params import load_params
from stages.common.paths import DATA
from stages.demo.birds.draw import write_images


def main() -> None:
    argparse.ArgumentParser(prog="python -m stages.demo.birds", description=__doc__).parse_args()
    demo = load_params().demo
    write_images(DATA / "demo" / "images", demo.seed, demo.images_per_class)


if __name__ == "__main__":
    run(main)
