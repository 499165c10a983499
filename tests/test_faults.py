"""A sample of `python -m benchmarks.faults`: each kind of corruption of each artifact, with one stage that reads it.

A stage refuses a corrupt file in one line that names it, or its results are those of the clean run.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.faults import base, cases, sketches
from benchmarks.faults.cases import Case
from benchmarks.faults.corruptions import FILE, STALE, Corruption
from benchmarks.faults.forks import Ended
from benchmarks.faults.ledger import WRONG

READER = {
    "images": ("score",),
    "classes": ("report", "finer.unify"),
    "boxes": ("score",),
    "texts": ("score",),
    "views": ("embed",),
    "predictions": ("report", "finer.align"),
    "answers": ("finer.score",),
}
"""Who is given the corrupt artifact, and who what is stale, if not its first reader: a report takes longest."""
FLIPS = 2
"""Of each artifact, with the same reader."""


def sample() -> Iterator[tuple[Case, Corruption | None]]:
    """Each corruption of each artifact in each mode once.

    Of those of columns there are two for each artifact, and those of whole files are tried on two artifacts.
    """
    found: dict[tuple[str, str, str], tuple[Case, Corruption]] = {}
    alike: dict[tuple[str, ...], set[tuple[str, str]]] = {}
    for case, corruption in cases.all_corruptions():
        which, first = (case.kind, case.corruption), case.corruption.split(": ")[0]
        if first == "columns":
            several = alike.setdefault((case.kind, case.mode), set())
        elif first == "file" and " of " not in case.corruption:  # the same for whatever the file holds
            several = alike.setdefault((case.corruption, Path(base.KINDS[case.kind].path).suffix), set())
        else:
            several = set()
        if len(several) >= 2 and which not in several:
            continue
        several.add(which)
        key = (*which, case.mode)
        if key not in found or case.stage == reader(case.kind, case.mode):
            found[key] = case, corruption
    yield from found.values()
    for kind in base.KINDS:
        stage = reader(kind, STALE)
        yield from ((Case(kind, f"{cases.BIT_FLIP} {number}", FILE, stage), None) for number in range(FLIPS))


def reader(kind: str, mode: str) -> str:
    readers = READER.get(kind, base.KINDS[kind].readers[:1])
    return readers[-1 if mode == STALE else 0]


@dataclass(frozen=True)
class Clean:
    """The computed project, and what its stages print that print results."""

    folder: Path
    printed: dict[str, str]


def run(line: str, capsys: pytest.CaptureFixture[str]) -> Ended:
    """Run a stage in this process and folder."""
    capsys.readouterr()
    code, raised = 0, ""
    try:
        base.run_lines([line])
    except SystemExit as end:
        code = int(end.code or 0)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic in a library is no Exception
        code, raised = 1, f"Traceback\n{type(error).__name__}: {error}"
    said = capsys.readouterr()
    return Ended(code, said.out, said.err + raised, late=False)


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The computed project; reports hold sketches in place of pictures, here and in the tests."""
    folder = tmp_path_factory.mktemp("faults") / "clean"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        patch.setattr(sys, "argv", [])
        sketches.install(patch.setattr)
        base.compute(folder, 0)
        yield folder


@pytest.fixture
def clean(computed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Clean:
    monkeypatch.setattr(sys, "argv", [])
    if not PRINTED:
        monkeypatch.chdir(computed)
        PRINTED.update({name: run(of.line, capsys).out for name, of in base.STAGES.items() if of.prints})
    return Clean(computed, PRINTED)


PRINTED: dict[str, str] = {}


@pytest.mark.parametrize(("case", "corruption"), [pytest.param(*one, id=str(one[0])) for one in sample()])
def test_nothing_wrong_gets_through(
    case: Case,
    corruption: Corruption | None,
    clean: Clean,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, stage = tmp_path / "project", base.STAGES[case.stage]
    shutil.copytree(clean.folder, folder, copy_function=os.link)
    monkeypatch.chdir(folder)
    path = cases.corrupt(case, corruption, seed=0)
    if not stage.keeps:
        cases.remove(stage, path)
    ended = run(stage.line, capsys)
    verdict = cases.judge(case, ended, path, folder, clean.folder, clean.printed.get(case.stage, ""))
    assert verdict.outcome != WRONG, verdict.detail
