"""Child processes that end with the stage, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from stages.common.errors import UserError

CODE = Path(__file__).resolve().parents[2]

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def die_with_parent() -> None:
    """Run in a child process: makes it end together with its parent, even if that is killed. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)


def output_of(module: str, *arguments: str) -> str:
    """What `python -m <module>` prints. Stages do not import each other, so this is how one asks another.

    Raises:
        UserError: the last line of what it said, if it failed.
    """
    search = os.pathsep.join(filter(None, [str(CODE), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        raise UserError((done.stderr.strip().splitlines() or ["no reason given"])[-1].removeprefix("error: "))
    return done.stdout


@contextmanager
def worker_processes(count: int) -> Iterator[Callable[..., Future[Any]]]:
    """A function `later(work, *arguments)` that has one of `count` processes call `work(*arguments)`.

    At an error or a signal, calls that have not begun are dropped.
    """
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=die_with_parent)

    def later(work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        # It starts a process, which inherits the mask: SIGINT, which a terminal sends to all, is the stage's alone.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return pool.submit(work, *arguments)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    try:
        yield later
    finally:
        pool.shutdown(cancel_futures=True)
