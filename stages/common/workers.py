"""Child processes that end with the stage, however that ends."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def die_with_parent() -> None:
    """Run in a child process: makes it end together with its parent, even if that is killed. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)


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
