"""report: `metrics.json` and the probe's figures -> `data/finer/report`: tables, the plots' data, pictures."""

from __future__ import annotations

import argparse

from stages.common.errors import run
from stages.finer import paths
from stages.finer.params import load_finer_params
from stages.finer.report.results import read_results
from stages.finer.report.write import write_report


def main() -> None:
    argparse.ArgumentParser(prog="python -m stages.finer.report", description=__doc__).parse_args()
    results = read_results(load_finer_params())
    write_report(results)
    print(f"report: {paths.REPORT / 'table.md'}; `python -m stages.finer` prints it")


if __name__ == "__main__":
    run(main)
