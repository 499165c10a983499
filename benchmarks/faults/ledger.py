"""What came of each case: a log that a campaign continues from, and the table."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

LOG = Path("data/faults.jsonl")
REFUSED, HARMLESS, WRONG = "refused", "harmless", "wrong"
HEADER = ("kind", "tried", REFUSED, HARMLESS, WRONG)
CODE = ("stages/**/*.py", "benchmarks/faults/*.py", "tests/*_project.py", "tests/openai_*.py", "tests/conftest.py")


@dataclass(frozen=True)
class Entry:
    part: str
    """artifacts, flips, kills or endpoint."""
    kind: str
    """Its row of the table."""
    case: str
    seed: int
    outcome: str
    detail: str
    """One line that says why."""
    count: int = 1
    """How many faults it stands for."""


def code_digest() -> str:
    """Of all code that decides about an outcome."""
    state = hashlib.sha256()
    for path in sorted(path for pattern in CODE for path in Path().glob(pattern)):
        state.update(path.as_posix().encode() + path.read_bytes())
    return state.hexdigest()[:16]


class Ledger:
    """The outcomes so far of the present code; those of other code stay in the log and do not count."""

    def __init__(self, log: Path = LOG) -> None:
        self.log, self.code = log, code_digest()
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        self.entries = [Entry(**line["entry"]) for line in lines if line["code"] == self.code]
        self.known = {(entry.part, entry.seed, entry.case) for entry in self.entries}
        log.parent.mkdir(parents=True, exist_ok=True)

    def has(self, part: str, seed: int, case: str) -> bool:
        return (part, seed, case) in self.known

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.known.add((entry.part, entry.seed, entry.case))
        with self.log.open("a") as file:
            file.write(json.dumps({"code": self.code, "entry": asdict(entry)}) + "\n")


def rows(entries: Iterable[Entry]) -> list[tuple[str, int, int, int, int]]:
    """Rows of the table, in the order in which kinds first came, and the sum of each part."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for entry in entries:
        for kind in (entry.kind, ""):
            counts.setdefault((entry.part, kind), Counter())[entry.outcome] += entry.count
    made = []
    for part in dict.fromkeys(part for part, _ in counts):
        for kind in sorted(kind for of, kind in counts if of == part and kind):
            made.append(_row(f"{part}: {kind}", counts[part, kind]))
        made.append(_row(f"**{part}: all**", counts[part, ""]))
    return made


def _row(name: str, counts: Counter[str]) -> tuple[str, int, int, int, int]:
    return name, counts.total(), counts[REFUSED], counts[HARMLESS], counts[WRONG]


def markdown(entries: Iterable[Entry]) -> str:
    """The table of docs/reliability.md."""
    lines = ["| " + " | ".join(HEADER) + " |", "|---|---:|---:|---:|---:|"]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows(entries))])


def list_wrong(entries: Iterable[Entry]) -> str:
    """Everything that came out wrong: each detail once, with the number of its cases and some of them."""
    found: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        if entry.outcome == WRONG:
            found.setdefault((f"{entry.part}: {entry.kind.split(': ')[0]}", entry.detail), []).append(
                f"{entry.case} (seed {entry.seed})"
            )
    lines = []
    for (kind, detail), repeated in sorted(found.items()):
        cases = list(dict.fromkeys(repeated))
        more = f"\n      and {len(cases) - 8} more" if len(cases) > 8 else ""
        lines.append(f"{kind}: {len(cases)} x {detail[:400]}" + "".join(f"\n      {c}" for c in cases[:8]) + more)
    return "\n".join(lines)
