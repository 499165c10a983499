"""Files are written under a temporary name and renamed, so a file that exists is whole."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _temporary(path: Path) -> Path:
    """A name beside `path`, in a folder that exists and is free of what killed writers left.

    It carries the process id, so that two processes never write the same file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, glob.escape(path.name))
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to `path` on success and removed on failure."""
    temporary = _temporary(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        # Errors of writing name no file, or the temporary file, which users do not know.
        if error.filename in (None, temporary, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, renamed to `path` on success and removed on failure, as `replacing` does with a file.

    Args:
        path: of nothing, or of an empty folder.
    """
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename is None or Path(str(error.filename)).is_relative_to(temporary):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system does not allow that. `target` does not exist.

    No stage writes into a file, so neither name changes with the other.
    """
    source = source.resolve()  # DVC may have put a symbolic link there
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        with target.open("rb+") as file:
            os.fsync(file.fileno())


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Remove the temporary files and folders of processes that are no more.

    Args:
        pattern: of the names that the files should have got, such as "part-*.parquet".
    """
    for left in folder.glob(f".{pattern}.*tmp"):
        process = left.name.removesuffix(".tmp").rpartition(".")[2]
        if not (process.isdecimal() and _is_alive(int(process))):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    """Whether there is such a process on this machine. On others, a run of the same stage is kept away by its lock."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
