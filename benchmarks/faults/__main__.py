"""Corrupt artifacts, kill runs, let endpoints fail: does anything wrong get through?

    python -m benchmarks.faults                        everything, two seeds
    python -m benchmarks.faults artifacts flips        some parts: artifacts, flips, kills, endpoint
    python -m benchmarks.faults --quick                a small sample, one seed
    python -m benchmarks.faults --markdown             the table of what was run, for docs/reliability.md; runs nothing

What came of each case stands in data/faults.jsonl. A campaign that is started again with the same code continues.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

os.environ.update(OMP_NUM_THREADS="1", RAYON_NUM_THREADS="1", POLARS_MAX_THREADS="1")  # before they are read

import torch
from tqdm import tqdm

from benchmarks.common import print_table, record
from benchmarks.faults import artifacts, endpoint, kills
from benchmarks.faults.ledger import HEADER, WRONG, Ledger, list_wrong, markdown, rows

PARTS = ("artifacts", "flips", "kills", "endpoint")


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.faults", description="A campaign of faults.")
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; all where left out")
    parser.add_argument("--quick", action="store_true", help="a small sample with the first seed")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="default: 0 1")
    parser.add_argument("--markdown", action="store_true", help="print the table of what was run, run nothing")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(unknown)}")
    ledger = Ledger()
    if options.markdown:
        print(markdown(ledger.entries))
        return
    tqdm.monitor_interval = 0  # its thread would be in the way of forking
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and what is under way is cleaned up
    for seed in options.seeds[:1] if options.quick else options.seeds:
        for part in options.parts or PARTS:
            run(part, seed, options.quick, ledger)
    report(ledger, options.quick)


def run(part: str, seed: int, quick: bool, ledger: Ledger) -> None:
    if part in ("artifacts", "flips"):
        artifacts.run_part(part, seed, quick, ledger)
    elif part == "kills":
        kills.run_part(seed, quick, ledger)
    else:
        endpoint.run_part(seed, quick, ledger)


def report(ledger: Ledger, quick: bool) -> None:
    """Print the table and what came out wrong, which ends with exit code 1; record the figures of all parts."""
    made = rows(ledger.entries)
    print_table("Faults", HEADER, made)
    wrong = sum(entry.count for entry in ledger.entries if entry.outcome == WRONG)
    tried = sum(entry.count for entry in ledger.entries)
    if not quick and {entry.part for entry in ledger.entries} == set(PARTS):
        details = [dict(zip(HEADER, row, strict=True)) for row in made]
        record("faults", {"faults_tried": tried, "faults_wrong": wrong}, details)
    if wrong:
        print("\nWrong:\n" + list_wrong(ledger.entries))
        sys.exit(1)


if __name__ == "__main__":
    main()
