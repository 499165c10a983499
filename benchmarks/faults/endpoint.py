"""The part `endpoint`: an LLM's endpoint fails at random while it is asked, and runs are killed in between.

In the end no answer may be lost, none paid for twice except what was under way at a kill, and the key be nowhere.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import zlib
from functools import partial
from pathlib import Path

import describe_project
import numpy as np
import pyarrow.parquet as pq
import yaml
from openai_server import KEY
from tqdm import tqdm

from benchmarks.faults import server
from benchmarks.faults.base import make_inputs, run_lines
from benchmarks.faults.forks import Ended, run_all, start, wait
from benchmarks.faults.ledger import HARMLESS, WRONG, Entry, Ledger

MODES = {"direct": 8, "batch": 5, "batch, lagging list": 5, "ask": 6}
"""How describe or finer ask, and how many projects do so."""
RUNS = {"direct": 6, "batch": 12, "ask": 6}
CONCURRENCY, TIMEOUT = 3, 2.0
CLASSES = [f"bird {number}" for number in range(24)]
SECRETS = (KEY, KEY[:9], KEY[-8:])
LINES = {"ask": "finer.ask --lvlm vlm"}
DESCRIBE = "describe --dataset demo --source parts"
RESULTS = {"ask": "data/finer/answers/vlm/toy.parquet"}


def make_project(folder: Path, mode: str, seed: int, retries: int) -> None:
    """In a child: a project that asks."""
    settings = {"concurrency": CONCURRENCY, "timeout": TIMEOUT, "max_retries": retries}
    if mode != "ask":
        describe_project.make_project(folder, CLASSES, **settings, mode=mode.split(",")[0], batch_poll=0.02)
        return
    make_inputs(folder, seed)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["finer"]["endpoints"] = {"vlm": {"model": "x", "vision": True}}
    params["finer"]["ask"].update(settings, granularities=["superordinate", "fine"], images_per_class=1)
    params["finer"]["ask"].update(prompting=["plain", "attrseek"])
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    os.chdir(folder)
    run_lines(["ingest --dataset toy", "finer.concepts --dataset toy", "finer.unify --dataset toy"])


def run_in(folder: Path, line: str) -> None:
    os.chdir(folder)
    run_lines([line])


def draws(mode: str, seed: int, number: int) -> list[int]:
    """What the random numbers of a trial come from."""
    return [seed, number, zlib.crc32(mode.encode())]


class Trial:
    """One project and its endpoint. `problems` are what came out wrong."""

    def __init__(self, work: Path, mode: str, seed: int, number: int) -> None:
        self.work, self.mode = work, mode
        self.rng = np.random.default_rng(draws(mode, seed, number))
        self.killed, self.problems = 0, list[str]()
        self.result = work / RESULTS.get(mode, describe_project.JSON)

    def run(self, folder: Path, kill: bool = False) -> Ended:
        """Ask once; what was said is checked."""
        submitted = self.place(folder) / server.SUBMITTED
        submitted.unlink(missing_ok=True)
        child = start(lambda _: run_in(folder, LINES.get(self.mode, DESCRIBE)))
        if kill:
            until = time.monotonic() + self.rng.uniform(0, 1.0)
            # As soon as a batch is there, before the run knows; at a random moment where there is none.
            early = self.mode.startswith("batch") and self.rng.random() < 0.8
            while time.monotonic() < until and not (early and submitted.exists()):
                time.sleep(0.001)
            os.kill(child.pid, signal.SIGKILL)
        ended = wait(child)
        self.killed += ended.code == -signal.SIGKILL
        said = [line for line in ended.lines if not line.startswith("warning: ")]
        refused = ended.code == 1 and len(said) == 1 and said[0].startswith("error: ")
        if not (refused or (ended.code in (0, -signal.SIGKILL) and not said)):
            what = "does not end" if ended.late else f"exit code {ended.code}"
            self.problems.append(f"{what} and {len(said)} lines, the last: {' / '.join(said[-1:])}"[:600])
        if any(secret in ended.out + ended.err for secret in SECRETS):
            self.problems.append("the key was printed")
        return ended

    def place(self, folder: Path) -> Path:
        """Where the endpoint of a project keeps its files."""
        return folder.with_name(f"endpoint of {folder.name}")

    def finish(self) -> None:
        """The last runs, without faults, and what must be true afterwards."""
        ended = self.run(self.work)
        for _ in range(2):
            # A batch that was under way holds requests that failed before.
            ended = self.run(self.work) if ended.code and self.mode.startswith("batch") else ended
        if ended.code:
            self.problems.append(f"the last run failed: {' / '.join(ended.lines[-1:])}"[:600])
        for path in self.work.rglob("*"):
            if path.is_file() and any(secret.encode() in path.read_bytes() for secret in SECRETS):
                self.problems.append(f"the key is in {path.relative_to(self.work)}")

    def check_counts(self, twice: dict[str, int]) -> None:
        extra = sum(count - 1 for count in twice.values())
        allowed = self.killed * CONCURRENCY if not self.mode.startswith("batch") else 0
        if extra > allowed:
            self.problems.append(f"{extra} answers were paid for twice or more, at {self.killed} kills")


def run_trial(work: Path, mode: str, seed: int, number: int) -> None:
    """In a child: ask again and again while the endpoint fails, then once more; prints what came of it as JSON."""
    trial = Trial(work, mode, seed, number)
    made = start(lambda _: make_project(work, mode, seed, retries=number % 2))
    if (ended := wait(made)).code:
        sys.exit(f"the project failed: {ended.err}")
    clean = work.with_name("clean")
    shutil.copytree(work, clean)
    os.environ.update(OPENAI_API_KEY=KEY, NO_PROXY="127.0.0.1")
    counts: dict[str, dict[str, int]] = {}
    for folder in (clean, work):
        place = trial.place(folder)
        place.mkdir()
        if folder == clean:
            (place / server.QUIET).touch()
        faults = "ask" if mode == "ask" else mode.split(",")[0]
        of = partial(server.serve, place, faults, draws(mode, seed, number), lag=mode.endswith("lagging list"))
        process = start(lambda _, of=of: of(), limit=600)  # type: ignore[misc]
        while not (place / server.URL).exists():
            time.sleep(0.01)
        os.environ["OPENAI_BASE_URL"] = (place / server.URL).read_text()
        if folder == clean:
            trial.run(clean)
        else:
            for _ in range(RUNS[faults]):
                trial.run(work, kill=bool(trial.rng.random() < 0.6))
            (place / server.QUIET).touch()
            trial.finish()
        (place / server.STOP).touch()
        wait(process)
        counts = json.loads((place / server.COUNTS).read_text())
    trial.check_counts(counts["twice"])
    result = clean / trial.result.relative_to(work)
    if not trial.result.exists() or answers_in(trial.result) != answers_in(result):
        trial.problems.append("other answers than those of a quiet run")
    print(json.dumps({"met": counts["met"], "killed": trial.killed, "problems": trial.problems}))


def answers_in(path: Path) -> object:
    """What was answered, without the reasons why answers ended, which the endpoint garbles."""
    if path.suffix == ".json":
        return json.loads(path.read_text())
    table = pq.read_table(path, memory_map=False, use_threads=False)
    return table.drop_columns(["finish_reason"]).to_pylist()


def run_part(seed: int, quick: bool, ledger: Ledger) -> None:
    """Every trial that the ledger lacks."""
    trials = [(mode, number) for mode, count in MODES.items() for number in range(1 if quick else count)]
    left = [one for one in trials if not ledger.has("endpoint", seed, f"{one[0]}, trial {one[1]}")]
    if not left:
        return
    works = (((mode, number), partial(run_trial, mode=mode, seed=seed, number=number)) for mode, number in left)
    with tqdm(total=len(left), desc=f"endpoint, seed {seed}", unit="project") as progress:
        for (mode, number), ended, _ in run_all(works, limit=900):
            add(ledger, seed, mode, f"{mode}, trial {number}", ended)
            progress.update()


def add(ledger: Ledger, seed: int, mode: str, case: str, ended: Ended) -> None:
    """An entry for the faults that a trial met, and one for its kills; all are wrong if the end is."""
    name = "finer ask" if mode == "ask" else f"describe {mode}"
    if ended.code:
        why = f"{ended.code}: {' / '.join(ended.lines[-2:])}"
        ledger.add(Entry("endpoint", f"{name}: a trial that failed", case, seed, WRONG, why))
        return
    found = json.loads(ended.out)
    outcome, why = (WRONG if found["problems"] else HARMLESS), "; ".join(dict.fromkeys(found["problems"]))
    for kind, count in (("faults", sum(found["met"].values())), ("kills in between", found["killed"])):
        ledger.add(Entry("endpoint", f"{name}: {kind}", case, seed, outcome, why, count))
