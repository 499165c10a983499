"""Work in forked children, so that nothing is imported twice and a crash or an endless run of one is only its own."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Key = TypeVar("Key")
WORKERS = 2
TURN = 0.002
"""Seconds between two looks at the children."""


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int
    """Its exit code; of a signal, minus its number."""
    out: str
    err: str
    late: bool
    """Whether it was killed at the time limit."""

    @property
    def lines(self) -> list[str]:
        """What it wrote on standard error, without empty lines."""
        return [line for line in self.err.splitlines() if line.strip()]


@dataclass
class Child:
    pid: int
    folder: Path
    until: float


_within: list[Path] = []
"""In a child: its own folder."""


def scratch() -> Path:
    """A new folder, in memory where the machine has such a place: many small files are written and synchronised.

    That of a child is within the child's own, so that nothing is left of a child that is killed.
    """
    memory = Path("/dev/shm")
    place = _within[-1] if _within else memory if os.access(memory, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="faults-", dir=place))


def start(work: Callable[[Path], object], limit: float = 60.0) -> Child:
    """Start `work` in a child, with a folder of its own; what it prints is kept beside that folder."""
    folder = scratch()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Child(pid, folder, time.monotonic() + limit)
    code = 1
    _within.append(folder)
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / name, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), number)
        work(folder / "work")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def look(child: Child) -> Ended | None:
    """How the child ended; None if it is still under way. A child that is late is killed."""
    late = time.monotonic() > child.until
    if late:
        os.kill(child.pid, signal.SIGKILL)
    pid, status = os.waitpid(child.pid, 0 if late else os.WNOHANG)
    if not pid:
        return None
    out, err = (child.folder / name for name in ("out", "err"))
    texts = [path.read_text(errors="replace") if path.exists() else "" for path in (out, err)]
    return Ended(os.waitstatus_to_exitcode(status), texts[0], texts[1], late)


def wait(child: Child) -> Ended:
    """How the child ends; its folder is removed."""
    try:
        while (ended := look(child)) is None:
            time.sleep(TURN)
        return ended
    except BaseException:
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        raise
    finally:
        shutil.rmtree(child.folder, ignore_errors=True)


def run_all(
    works: Iterable[tuple[Key, Callable[[Path], object]]], limit: float = 60.0
) -> Iterator[tuple[Key, Ended, Path]]:
    """Run all of the work, a few at a time.

    Yields:
        In the order in which they end: the key, how it ended, and its folder, which is removed afterwards.
    """
    waiting, running = iter(works), list[tuple[Key, Child]]()
    try:
        while True:
            while len(running) < WORKERS and (following := next(waiting, None)) is not None:
                running.append((following[0], start(following[1], limit)))
            if not running:
                return
            for key, child in list(running):
                if (ended := look(child)) is not None:
                    running.remove((key, child))
                    yield key, ended, child.folder / "work"
                    shutil.rmtree(child.folder, ignore_errors=True)
            time.sleep(TURN)
    finally:
        for _, child in running:
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
            shutil.rmtree(child.folder, ignore_errors=True)
