"""The part `kills`: whole runs are killed at random moments and run again; the result must be that of a quiet run.

Each kill aims at a random stage and a random moment of it, so that short stages are hit as often as long ones.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.faults import cases
from benchmarks.faults.artifacts import finish
from benchmarks.faults.base import STAGES, TOY, make_inputs, run_lines, whole_run
from benchmarks.faults.forks import Ended, look, run_all, scratch, start, wait
from benchmarks.faults.ledger import HARMLESS, WRONG, Entry, Ledger

TRIALS, KILLS = 18, 3
"""Projects, and kills of each."""
LINE, SECONDS = "line.txt", "seconds.json"
"""Files beside the project: which stage is under way, and how long each took."""
OUTPUTS = (
    *(name for stage in STAGES.values() for name in stage.outputs if name != "read.json"),
    *(f"{TOY}/{name}" for name in ("images.parquet", "classes.parquet", "skipped.parquet", "settings")),
)


def run_whole(folder: Path) -> None:
    """In a child: every stage in turn, saying which."""
    os.chdir(folder)
    took = []
    for number, line in enumerate(whole_run()):
        (folder.parent / LINE).write_text(str(number))
        before = time.monotonic()
        run_lines([line])
        took.append(time.monotonic() - before)
    (folder.parent / SECONDS).write_text(json.dumps(took))


def run_killed(folder: Path, rng: np.random.Generator, seconds: list[float]) -> tuple[str, Ended]:
    """Run every stage and kill that; the name of the stage at which was aimed, and how the run ended."""
    aim = int(rng.choice([place for place, line in enumerate(whole_run()) if line != "answers"]))
    after = rng.uniform(0, 1.2 * seconds[aim])
    marker = folder.parent / LINE
    marker.unlink(missing_ok=True)
    child = start(lambda _: run_whole(folder), limit=120)
    ended, reached = None, None
    while ended is None:
        now = marker.read_text() if marker.exists() else ""
        if reached is None and now and int(now) >= aim:
            reached = time.monotonic()
        if reached is not None and time.monotonic() - reached >= after:
            os.kill(child.pid, signal.SIGKILL)
            ended = wait(child)
            break
        ended = look(child)
        time.sleep(0.0005)
    shutil.rmtree(child.folder, ignore_errors=True)
    return whole_run()[aim].split()[0], ended


def run_trial(work: Path, reference: Path, seed: int, number: int) -> None:
    """In a child: kill a run some times, finish it, compare; prints what came of it as JSON."""
    shutil.copytree(reference / "inputs", work)
    rng = np.random.default_rng([seed, number])
    seconds = json.loads((reference / SECONDS).read_text())
    killed, problems = [], []
    for _ in range(KILLS):
        name, ended = run_killed(work, rng, seconds)
        killed += [name] if ended.code == -signal.SIGKILL else []
        if ended.code not in (0, -signal.SIGKILL):
            problems.append(f"a run after a kill ended with {ended.code}: {' / '.join(ended.lines[-2:])}")
    ended = wait(start(lambda _: run_whole(work), limit=120))
    if ended.code or ended.lines:
        problems.append(f"the last run ended with {ended.code}: {' / '.join(ended.lines[-2:])}")
    names = [cases.names_in(root, OUTPUTS) for root in (work, reference / "project")]
    if names[0] != names[1]:
        problems.append(f"other files: {', '.join(sorted(names[0] ^ names[1]))}")
    clean = reference / "project"
    changed = [
        name for name in sorted(names[0] & names[1]) if (work / name).read_bytes() != (clean / name).read_bytes()
    ]
    if changed:
        problems.append(f"other bytes: {', '.join(changed)}")
    print(json.dumps({"killed": killed, "problems": problems}))


def make_reference(root: Path, seed: int) -> None:
    """In a child: the inputs, and the project as a quiet run leaves it."""
    make_inputs(root / "inputs", seed)
    shutil.copytree(root / "inputs", root / "project")
    run_whole(root / "project")


def run_part(seed: int, quick: bool, ledger: Ledger) -> None:
    """Every trial that the ledger lacks."""
    left = [number for number in range(3 if quick else TRIALS) if not ledger.has("kills", seed, f"trial {number}")]
    if not left:
        return
    root = scratch()
    try:
        finish("the quiet run", wait(start(lambda _: make_reference(root, seed), limit=300)))
        works = ((one, partial(run_trial, reference=root, seed=seed, number=one)) for one in left)
        with tqdm(total=len(left), desc=f"kills, seed {seed}", unit="project") as progress:
            for number, ended, _ in run_all(works, limit=600):
                add(ledger, seed, number, ended)
                progress.update()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def add(ledger: Ledger, seed: int, number: int, ended: Ended) -> None:
    """One entry for each kill of a trial; all are wrong if the end is."""
    case = f"trial {number}"
    if ended.code:
        why = f"{ended.code}: {' / '.join(ended.lines[-2:])}"
        ledger.add(Entry("kills", "a trial that failed", case, seed, WRONG, why))
        return
    found = json.loads(ended.out)
    outcome = WRONG if found["problems"] else HARMLESS
    for name in found["killed"]:
        ledger.add(Entry("kills", f"in {name}", case, seed, outcome, "; ".join(found["problems"])))
    if not found["killed"]:
        ledger.add(Entry("kills", "all came too late", case, seed, outcome, "; ".join(found["problems"]), count=0))
