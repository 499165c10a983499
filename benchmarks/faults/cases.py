"""A case: an artifact, a corruption and a stage that reads it. What is tried, and how it is judged."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.faults import corruptions, sketches
from benchmarks.faults.base import KINDS, STAGES, Stage, run_lines
from benchmarks.faults.corruptions import FILE, Corruption
from benchmarks.faults.forks import Ended
from benchmarks.faults.ledger import HARMLESS, REFUSED, WRONG
from benchmarks.faults.listed import CORRUPTIONS
from stages.common.tables import METADATA_KEY

FLIPS = 200
"""Of each kind of artifact."""
CORRUPTED = "corrupted"
"""File beside the project that names what was corrupted."""
BIT_FLIP, CONTROL = "bit flip", "nothing"


@dataclass(frozen=True)
class Case:
    kind: str
    """A key of `base.KINDS`."""
    corruption: str
    mode: str
    stage: str
    """A key of `base.STAGES`."""

    def __str__(self) -> str:
        return f"{self.kind}, {self.corruption}, {self.mode}: {self.stage}"

    def rng(self, seed: int) -> np.random.Generator:
        return np.random.default_rng([seed, zlib.crc32(str(self).encode())])


@dataclass(frozen=True)
class Verdict:
    outcome: str
    detail: str
    """One line that says why."""


def all_corruptions() -> Iterator[tuple[Case, Corruption]]:
    """Every corruption of every artifact in every mode with every stage that reads it."""
    for kind, of in KINDS.items():
        for corruption in CORRUPTIONS:
            for stage in of.readers:
                for mode in corruption.modes(kind, stage):
                    yield Case(kind, corruption.name, mode, stage), corruption


def all_flips(count: int = FLIPS) -> Iterator[Case]:
    """Bit flips of every artifact, in turns with the stages that read it."""
    for kind, of in KINDS.items():
        for number in range(count):
            yield Case(kind, f"{BIT_FLIP} {number}", FILE, of.readers[number % len(of.readers)])


def controls() -> Iterator[Case]:
    """Every stage once with nothing corrupted: the comparison must find nothing."""
    for stage in STAGES:
        kind = next(name for name, of in KINDS.items() if stage in of.readers) if stage != "finer.mixture" else "images"
        yield Case(kind, CONTROL, FILE, stage)


def chosen_path(kind: str, rng: np.random.Generator) -> Path:
    """The file of an artifact in the present folder, one of several at random."""
    found = sorted(Path().glob(KINDS[kind].path))
    return found[int(rng.integers(len(found)))]


def corrupt(case: Case, corruption: Corruption | None, seed: int) -> Path:
    """Corrupt the artifact in the present folder; returns the file."""
    rng = case.rng(seed)
    path = chosen_path(case.kind, rng)
    content = path.read_bytes()
    path.unlink()  # it may be a link to the file of the clean project
    path.write_bytes(content)
    if corruption is not None:
        corruption.apply(case.kind, path, case.mode, rng)
    elif case.corruption != CONTROL:
        size = path.stat().st_size
        # As often in the footer as in the pages, whichever is the larger part of the file.
        footer = 8 + int.from_bytes(path.read_bytes()[-8:-4], "little") if path.suffix == ".parquet" else 0
        first, last = (size - footer, size) if footer and rng.random() < 0.5 else (0, size - footer)
        corruptions.flip_bit(path, int(rng.integers(8 * first, 8 * last)))
    return path


def run_case(folder: Path, base: Path, case: Case, corruption: Corruption | None, seed: int) -> None:
    """In a child: link to the project's files, corrupt the artifact, run the stage, which replaces files."""
    shutil.copytree(base, folder, copy_function=os.link)
    os.chdir(folder)
    path = corrupt(case, corruption, seed)
    (folder.parent / CORRUPTED).write_text(path.as_posix())
    stage = STAGES[case.stage]
    if not stage.keeps:
        remove(stage, path)
    if base.name == sketches.SKETCHED:
        sketches.install()
    run_lines([stage.line])


def remove(stage: Stage, but: Path) -> None:
    """Remove what the stage wrote before, so that what is there afterwards is its own."""
    for name in stage.outputs:
        for path in [Path(name), *Path(name).rglob("*")]:
            if path.is_file() and path != but:
                path.unlink()


def judge_child(case: Case, ended: Ended, folder: Path, base: Path, clean_out: str) -> Verdict:
    """What came of a case that `run_case` ran in a child."""
    marker = folder.parent / CORRUPTED
    if not marker.exists():
        return Verdict(WRONG, f"the corruption failed: {' / '.join(ended.lines[-1:])}")
    return judge(case, ended, Path(marker.read_text()), folder, base, clean_out)


def judge(case: Case, ended: Ended, path: Path, folder: Path, base: Path, clean_out: str) -> Verdict:
    """What came of a case.

    Args:
        path: the file that was corrupted.
        folder: the project in which the stage ran.
        base: the project as it was before.
        clean_out: what the stage prints where nothing is corrupted.
    """
    last = ended.lines[-1] if ended.lines else ""
    if ended.late:
        return Verdict(WRONG, "does not end")
    if ended.code < 0:
        return Verdict(WRONG, f"killed by signal {-ended.code}")
    if "Traceback" in ended.err:
        return Verdict(WRONG, f"traceback: {last}")
    if ended.code:
        errors = [line for line in ended.lines if line.startswith("error: ")]
        if ended.code != 1 or len(errors) != 1 or len(ended.lines) != 1:
            return Verdict(WRONG, f"exit code {ended.code} and {len(ended.lines)} lines: {' / '.join(ended.lines)}")
        # Of shards their folder may be named, since the one that is missing has no name.
        named = [path.as_posix(), *([path.parent.as_posix()] if case.kind == "views" else [])]
        if not any(name in errors[0] for name in named):
            return Verdict(WRONG, f"the file is not named: {errors[0]}")
        return Verdict(REFUSED, errors[0])
    stage = STAGES[case.stage]
    different = differences(stage, folder, base)
    if different:
        return Verdict(WRONG, f"exit code 0 and other content: {', '.join(different)}")
    if stage.prints and ended.out != clean_out:
        return Verdict(WRONG, "exit code 0 and other figures printed")
    return Verdict(HARMLESS, last)


def differences(stage: Stage, folder: Path, base: Path) -> list[str]:
    """The outputs of the stage that are not those of the clean run."""
    names = [names_in(root, stage.outputs) for root in (folder, base)]
    return sorted(names[0] ^ names[1]) + [
        name for name in sorted(names[0] & names[1]) if not same(folder / name, base / name)
    ]


def names_in(root: Path, outputs: tuple[str, ...]) -> set[str]:
    found = [path for name in outputs for path in (root / name, *(root / name).rglob("*"))]
    return {path.relative_to(root).as_posix() for path in found if path.is_file()}


def same(path: Path, clean: Path) -> bool:
    """Whether two files are equal byte for byte or, if they are tables, value for value."""
    if path.read_bytes() == clean.read_bytes():
        return True
    if path.suffix != ".parquet":
        return False
    try:
        mine, theirs = (pq.read_table(one, memory_map=False, use_threads=False) for one in (path, clean))
        return mine.select(theirs.column_names).equals(theirs) and meta_of(mine) == meta_of(theirs)
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return False


def meta_of(table: pa.Table) -> object:
    return json.loads((table.schema.metadata or {})[METADATA_KEY])
