"""report: `metrics.json` and the probe's figures -> `data/finer/report`: tables, the plots' data, pictures."""

from __future__ import annotations

from stages.common.errors import run
from stages.finer import paths
from stages.finer.cli import parse_finer_job
from stages.finer.report.results import read_results
from stages.finer.report.write import write_report


def main() -> None:
    results = read_results(parse_finer_job("finer.report", __doc__).params)
    write_report(results)
    print(f"report: {paths.REPORT / 'table.md'}; `python -m stages.finer` prints it")


if __name__ == "__main__":
    run(main)
