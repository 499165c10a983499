"""SIGINT and SIGTERM end a stage with one line and exit code 130 or 143, at any moment and without a traceback.

The handlers are installed in processes of `python -m stages.<name>` alone, before anything else is imported. While
modules are imported nothing has to be cleaned up, so the process ends at once. While the stage works, the signal
becomes an exception, so that files and processes are cleaned up. Work that costs money is finished first (`finishing`).
"""

from __future__ import annotations

# Little is imported here and at the top, because a signal before the handlers are there still ends in a traceback.
import _thread
import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LINE = "interrupted; what was written stays, and the next run continues"

ENDS_WITHIN = 15.0
"""Seconds that a stage may take to clean up after a signal."""

SAME = 0.2
"""Seconds within which a second signal is the first one again: `timeout` sends its signal twice."""


class Interrupted(KeyboardInterrupt):
    """A signal that ends the stage."""


class Finishing:
    """Work that a signal lets finish."""

    def __init__(self, line: str, seconds: float) -> None:
        self.line, self.seconds = line, seconds
        self.signalled = False
        self.wake: Callable[[], object] = lambda: None
        """Called at the first signal, in the main thread."""


class _State:
    """Of this process. `code` is the exit code after a signal, 0 before."""

    code = 0
    since = 0.0
    said = False
    unwinds = False
    finishing: Finishing | None = None


_state = _State()


def install_if_stage() -> None:
    """Install the handlers if this process was started as `python -m stages.<name>`, and if it imports its first
    module.

    Other programs that import `stages` keep their own.
    """
    # While Python looks for the module, argv begins with "-m". In orig_argv the module's name stands just before the
    # module's own arguments.
    if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)].removeprefix("-m").startswith("stages."):
        for number in SIGNALS:
            signal.signal(number, _on_signal)
        atexit.register(_ignore)
        sys.unraisablehook = _on_unraisable
        threading.excepthook = _in_thread


def _ignore() -> None:
    """At the very end of the process, when all is done: Python takes its handlers away before it is gone."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _on_signal(number: int, _frame: object) -> None:
    state, code, now = _state, 128 + number, time.monotonic()
    if state.code and now - state.since < SAME:
        return
    if state.code or not state.unwinds:
        state.code = code
        _leave()
    state.code, state.since = code, now
    work = state.finishing
    _thread.start_new_thread(_leave_after, (ENDS_WITHIN + (work.seconds if work else 0),))
    if work is None:
        raise Interrupted
    say(work.line)
    work.signalled = True
    work.wake()


def _leave() -> None:
    say()
    os._exit(_state.code)


def _leave_after(seconds: float) -> None:
    time.sleep(seconds)
    _leave()


def _on_unraisable(lost: sys.UnraisableHookArgs) -> None:
    """Python drops what is raised in a finaliser, and prints it; a signal must not be lost."""
    if lost.exc_type is Interrupted:
        _leave()
    if not _state.code:
        sys.__unraisablehook__(lost)


def _in_thread(failed: threading.ExceptHookArgs) -> None:
    """What threads raise while the stage is being ended is a consequence."""
    if not _state.code:
        threading.__excepthook__(failed)


def say(line: str = LINE) -> None:
    """Print the one line about a signal, unless it was printed. Unbuffered: it may be in the middle of a `print`."""
    if not _state.said:
        _state.said = True
        with suppress(OSError):
            os.write(2, f"{line}\n".encode())


def exit_code() -> int:
    """130 or 143 after a signal, 0 before."""
    return _state.code


def check() -> None:
    """End the stage here if a signal has arrived.

    Raises:
        Interrupted: it has.
    """
    if _state.code:
        raise Interrupted


@contextmanager
def unwinding() -> Iterator[None]:
    """The stage itself: a signal raises `Interrupted` here, so that files and processes are cleaned up.

    Raises:
        Interrupted: also at the end, if a library has swallowed it.
    """
    _state.unwinds = True
    try:
        yield
    finally:
        _state.unwinds = False
    check()


@contextmanager
def finishing(line: str, seconds: float) -> Iterator[Finishing]:
    """Work that the first signal lets finish, but for no longer than `seconds`; a second one ends the process at once.

    Args:
        line: is printed at the signal.

    Raises:
        Interrupted: at the end, if there was a signal.
    """
    _state.finishing = Finishing(line, seconds)
    try:
        yield _state.finishing
    finally:
        _state.finishing = None
    check()


def sleep(seconds: float) -> None:
    """`time.sleep`, ended by a signal also inside `finishing`.

    Raises:
        Interrupted: there was one.
    """
    end = time.monotonic() + seconds
    check()
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))
        check()
