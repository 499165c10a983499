"""One run of a stage at a time: a second one of the same data set and model says who is running, and ends.

The lock is the kernel's, so that it ends with its process, however that ends. Its file `data/.<name>.lock` says who
holds it. The file is beside the artifacts, so that two machines which share them share the lock, but in no folder that
is an output of DVC.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stages.common.errors import UserError
from stages.common.paths import DATA

_held: dict[Path, int] | None = None
"""Locks of the stage that runs in this process: the files' descriptors."""


@contextmanager
def released_at_end() -> Iterator[None]:
    """Around a stage: what it locks is released at the end."""
    global _held
    outer, _held = _held, {}
    own = _held
    try:
        yield
    finally:
        for path, descriptor in own.items():
            # Removed while it is locked. A run that has it open already sees this (`_is_at`) and opens a new one.
            with suppress(OSError):
                path.unlink()
            os.close(descriptor)
        _held = outer


def hold(stage: str, *keys: str, wait: bool = False) -> None:
    """Lock a stage for these keys until the end of `released_at_end`.

    Nothing is locked outside of that, as in a notebook, or where files cannot be locked: in a read-only folder, or on a
    file system without locks.

    Args:
        keys: of params.yaml, such as the data set and the model, or the path of what the run writes.
        wait: for another run to end, instead of refusing.

    Raises:
        UserError: another run holds the lock. It is named by its process, host and start.
    """
    path = (DATA / f".{','.join([stage, *keys]).replace(os.sep, ',')}.lock").absolute()
    while _held is not None and path not in _held:
        descriptor = _open(path)
        if descriptor is None:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            who = _holder(descriptor)
            os.close(descriptor)
            what = f"{stage} ({', '.join(keys)})" if keys else stage
            raise UserError(f"another run of {what} is under way{who}; wait for it to end, or stop it") from None
        except OSError:
            os.close(descriptor)
            return
        if _is_at(path, descriptor):
            _held[path] = descriptor
            _sign(descriptor)
        else:
            os.close(descriptor)


def _open(path: Path) -> int | None:
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(PermissionError):
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        return os.open(path, os.O_RDONLY)  # another user's
    return None


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the locked file is still there, and was not removed by the run that held it before."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _sign(descriptor: int) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    note = f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode()
    with suppress(OSError):  # a full disk, or another user's file
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, note, 0)


def _holder(descriptor: int) -> str:
    """`: process 12 on host since ...`, as the holder has written it; empty if it could not."""
    for _ in range(10):  # it writes just after it has locked
        note = os.pread(descriptor, 1000, 0).decode(errors="replace").strip()
        if note:
            return f": {note}"
        time.sleep(0.02)
    return ""
