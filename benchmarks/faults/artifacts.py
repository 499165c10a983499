"""The parts `artifacts` and `flips`: every corruption and many bit flips of every artifact, stage by stage."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.faults import cases, sketches
from benchmarks.faults.base import STAGES, compute, run_lines
from benchmarks.faults.cases import Case
from benchmarks.faults.corruptions import Corruption
from benchmarks.faults.forks import Ended, run_all, scratch, start, wait
from benchmarks.faults.ledger import HARMLESS, Entry, Ledger

DRAWN = "drawn"
Tried = tuple[Case, Corruption | None]


def finish(name: str, ended: Ended) -> None:
    """Stop the campaign if what it needs cannot be made."""
    if ended.code:
        sys.exit(f"{name} failed:\n{ended.err}")


@contextmanager
def base_project(seed: int) -> Iterator[Path]:
    """The folder of the computed project; beside it is one whose report holds sketches in place of pictures."""
    root = scratch()
    try:
        finish("the project", wait(start(lambda _: compute(root / DRAWN, seed), limit=300)))
        finish("its sketches", wait(start(lambda _: sketch(root), limit=300)))
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def sketch(root: Path) -> None:
    shutil.copytree(root / DRAWN, root / sketches.SKETCHED)
    os.chdir(root / sketches.SKETCHED)
    sketches.install()
    run_lines([STAGES["report"].line])


def run_cases(
    base: Path, seed: int, tried: list[Tried], clean: dict[str, str], report: Callable[[Case, cases.Verdict], object]
) -> None:
    """Run cases and report what came of each."""
    works = (
        (case, partial(cases.run_case, base=base, case=case, corruption=change, seed=seed)) for case, change in tried
    )
    for case, ended, folder in run_all(works):
        report(case, cases.judge_child(case, ended, folder, base, clean.get(case.stage, ended.out)))


def printed_when_clean(base: Path, seed: int) -> dict[str, str]:
    """What each stage prints where nothing is corrupted; stops where that differs from the first run."""
    printed: dict[str, str] = {}
    works = (
        (one, partial(cases.run_case, base=base, case=one, corruption=None, seed=seed)) for one in cases.controls()
    )
    for case, ended, folder in run_all(works):
        verdict = cases.judge_child(case, ended, folder, base, ended.out)
        if verdict.outcome != HARMLESS:
            sys.exit(f"with nothing corrupted, {case.stage}: {verdict.detail}")
        printed[case.stage] = ended.out
    return printed


def sample(found: list[Tried], quick: bool, seed: int) -> list[Tried]:
    """All, or with `quick` one in twelve."""
    if not quick:
        return found
    places = np.random.default_rng(seed).permutation(len(found))[: max(1, len(found) // 12)]
    return [found[place] for place in sorted(places.tolist())]


def run_part(part: str, seed: int, quick: bool, ledger: Ledger) -> None:
    """One of the two parts, as far as the ledger lacks it."""
    found: list[Tried] = (
        list(cases.all_corruptions()) if part == "artifacts" else [(case, None) for case in cases.all_flips()]
    )
    left = [one for one in sample(found, quick, seed) if not ledger.has(part, seed, str(one[0]))]
    if not left:
        return
    with base_project(seed) as root, tqdm(total=len(left), desc=f"{part}, seed {seed}", unit="case") as progress:
        base = root / (DRAWN if part == "artifacts" else sketches.SKETCHED)

        def report(case: Case, verdict: cases.Verdict) -> None:
            kind = f"{case.kind}, {case.mode}" if part == "artifacts" else case.kind
            ledger.add(Entry(part, kind, str(case), seed, verdict.outcome, verdict.detail))
            progress.update()

        run_cases(base, seed, left, printed_when_clean(base, seed), report)
