"""The response log: every answer that was received, one JSON object a line, so that nothing is paid for twice.

A line is an answer, keyed by its request's digest, or a record `{"wrote": sha256, ...}` of a description file that was
made from the answers. Lines are only ever appended, each flushed to the disk before the next request's answer is taken.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from stages.common import tables
from stages.common.errors import UserError, warn
from stages.describe.prompts import Request

HEADER = {"log": "responses", "format": 1}
"""First line of a log, so that one without answers is no empty file."""


@dataclass(frozen=True)
class Reply:
    """An answer as received, with the reason why it ended ("stop", "length") and the tokens it cost."""

    answer: str
    finish_reason: str | None
    usage: dict[str, int] = field(default_factory=dict)


@dataclass
class Records:
    """What a log holds. `whole_bytes` is the length of its whole lines, `size` that of the file."""

    answers: dict[str, Reply] = field(default_factory=dict)
    wrote: set[str] = field(default_factory=set)
    unreadable: int = 0
    whole_bytes: int = 0
    size: int = 0


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_log(path: Path) -> Records:
    """Read a log; no file is an empty log, and a last line that a killed run left torn is no record.

    Raises:
        UserError: the log is a link whose target is gone.
    """
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path} is a link to a file that is gone; fetch it with `dvc pull` or delete the link")
    content = path.read_bytes() if path.exists() else b""
    records = Records(size=len(content))
    lines = content.split(b"\n")
    torn = lines.pop()
    for line in lines:
        if not _add(records, line) and line.strip():
            records.unreadable += 1
    # A record that lacks nothing but its line feed has been paid for as well.
    records.whole_bytes = len(content) if _add(records, torn) else len(content) - len(torn)
    return records


def _add(records: Records, line: bytes) -> bool:
    """Take one line into `records`; False where it is no record. The first answer to a request counts."""
    try:
        record = json.loads(line)
        if record == HEADER:
            return True
        if "wrote" in record:
            records.wrote.add(record["wrote"])
        else:
            reply = Reply(record["answer"], record["finish_reason"], record.get("usage") or {})
            if not isinstance(reply.answer, str):
                return False
            records.answers.setdefault(record["request"], reply)
    except (ValueError, TypeError, KeyError):
        return False
    return True


def ensure_log(path: Path) -> None:
    """Create a log without answers where there is none: the pipeline lists it as an output in any case."""
    if not path.exists():
        tables.write_text(path, json.dumps(HEADER) + "\n")


class LogWriter:
    """Appends to a log that no other process appends to meanwhile; `records` is what it held when opened.

    Raises:
        UserError: another run holds the log, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> LogWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _make_private(self.path)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise UserError(f"another run is asking for {self.path}; wait for it to end") from None
        self.records = read_log(self.path)
        self._mend_end()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def _mend_end(self) -> None:
        """Let the log end with a line feed: complete the last record, or cut what is no record."""
        records = self.records
        if records.unreadable:
            warn(f"{self.path} has {records.unreadable} unreadable lines; their answers are asked for again")
        if records.whole_bytes < records.size:
            warn(f"{self.path} ended in a torn line of an interrupted run; it is cut off")
            os.ftruncate(self._descriptor, records.whole_bytes)
        elif records.size and not self._ends_with_line_feed():
            self._write(b"\n")

    def _ends_with_line_feed(self) -> bool:
        return os.pread(self._descriptor, 1, self.records.size - 1) == b"\n"

    def add_answer(self, request: Request, reply: Reply) -> None:
        """Append an answer; it is on the disk when this returns."""
        self.records.answers[request.digest] = reply
        self._append(
            {
                "request": request.digest,
                "class": request.name,
                "sample": request.sample,
                "model": request.body["model"],
                "prompt": request.prompt,
                "answer": reply.answer,
                "finish_reason": reply.finish_reason,
                "usage": reply.usage,
            }
        )

    def add_wrote(self, target: Path, content: bytes) -> None:
        """Append that `content` is about to be written to `target` by this stage."""
        self._append({"wrote": sha256(content), "file": target.as_posix()})

    def _append(self, record: dict[str, Any]) -> None:
        text = json.dumps(record | {"time": round(time.time(), 3)}, ensure_ascii=False)
        self._write(text.encode() + b"\n")

    def _write(self, line: bytes) -> None:
        before = os.fstat(self._descriptor).st_size
        try:
            left = line
            while left:
                left = left[os.write(self._descriptor, left) :]
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, before)  # no half line for the next run to trip over
            raise UserError(f"{self.path} cannot be written: {error.strerror}; run again to continue") from None


def _make_private(path: Path) -> None:
    """Replace a link into a cache, or a file that may not be written, by a writable copy of its own."""
    if not path.exists():
        return
    linked = path.is_symlink() or path.stat().st_nlink > 1
    # The mode and not os.access: to the superuser every file is writable, a protected one included.
    if linked or not path.stat().st_mode & 0o200:
        with tables.replacing(path) as temporary:
            shutil.copyfile(path, temporary)
            temporary.chmod(0o644)
