"""Print the tables of the FINER benchmark for every LVLM that was asked."""

from __future__ import annotations

import argparse

from stages.common.errors import run
from stages.finer.params import load_finer_params
from stages.finer.report.results import read_results
from stages.finer.report.tables import plain
from stages.finer.report.write import say_where


def main() -> None:
    argparse.ArgumentParser(prog="python -m stages.finer", description=__doc__).parse_args()
    print(plain(read_results(load_finer_params())))
    say_where()
    print("\ndvc plots show     plots and pictures in the browser")
    print("dvc metrics show   every figure")


if __name__ == "__main__":
    run(main)
