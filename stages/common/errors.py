"""One clear line for a user's mistake; a traceback only for a bug."""

from __future__ import annotations

import errno
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from stages.common import interrupts

OF_THE_MACHINE = (
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EIO,
    errno.EISDIR,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)
"""Errors that a disk or its permissions cause."""


class UserError(Exception):
    """A mistake in parameters or input: its text is one line that names the thing and the remedy."""


def nearest(word: str, known: list[str]) -> str:
    """` (did you mean 'x'?)` for the known word closest to `word`, or an empty string."""
    close = get_close_matches(word, known, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def warn(line: str) -> None:
    """One warning line on standard error."""
    print(f"warning: {line}", file=sys.stderr, flush=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Around writing `path` by means whose errors name no file: they become an `OSError` that names it.

    safetensors says "(os error 28)" in an error of its own.
    """
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    except Exception as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from None


@contextmanager
def pillow_warnings_ignored() -> Iterator[None]:
    """For a whole program: these warnings are about pixels (damaged EXIF, large images), not about the program."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\..*")
        yield


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main`: a `UserError` or a refusing disk becomes `error: ...` on standard error, exit code 1.

    SIGINT and SIGTERM become one line and exit codes 130 and 143.
    """
    from stages.common import locks  # which needs UserError

    try:
        with interrupts.unwinding(), locks.released_at_end(), pillow_warnings_ignored():
            main()
            sys.stdout.flush()
    except BaseException as error:
        code = _explain(error)
        if code is None:
            raise
        sys.exit(code)


def _explain(error: BaseException) -> int | None:
    """Say in one line what happened; the exit code. None for a bug, and for an exit that was meant."""
    if interrupts.exit_code():
        interrupts.say()
        return interrupts.exit_code()
    if isinstance(error, KeyboardInterrupt):  # where `interrupts` has no handlers, as in a notebook
        print(interrupts.LINE, file=sys.stderr)
        return 130
    if isinstance(error, BrokenPipeError):
        # The reader of the output, such as `head`, has closed it. Python would complain once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if isinstance(error, UserError):
        line = str(error)
    elif isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
        where = f"'{error.filename}': " if error.filename else ""
        line = f"{where}{os.strerror(error.errno).lower()}; what was written stays, correct this and run again"
    else:
        return None
    print(f"error: {' '.join(line.splitlines())}", file=sys.stderr, flush=True)  # names may contain line ends
    return 1
