"""The response log: every answer that was received, one JSON object a line, so that nothing is paid for twice.

A line is an answer, keyed by its request's digest, or one of these records: `{"wrote": sha256, ...}`, a description
file that was made from the answers; `{"unusable": reason, ...}`, what was paid and is no answer; `{"batch": id, ...}`,
a batch that was submitted or has ended; `{"intent": id, ...}`, a batch that is about to be submitted, or was not taken.
`{"wrote": ...}` and `{"copied": sha256, ...}`, a file taken over from another data set, name the model that answered.
Lines are only ever appended, each flushed to the disk before the next request's answer is taken.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import operator
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from stages.common import files, tables
from stages.common.errors import UserError, warn
from stages.common.requests import Asked

HEADER = {"log": "responses", "format": 1}
"""First line of a log, so that a log without answers is not an empty file."""

MOST_ANSWER = 2**20  # bytes
MOST_TOKENS = 10_000_000
"""Of one reply. A larger count is a fault of the server."""


def plausible(count: Any) -> int | None:
    """A count of tokens; None for what cannot be one."""
    if isinstance(count, bool) or not isinstance(count, int | float) or not 0 <= count <= MOST_TOKENS:
        return None
    return int(count) if count == int(count) else None


@dataclass(frozen=True)
class Reply:
    """An answer as received, with the reason why it ended ("stop", "length") and the tokens it cost."""

    answer: str
    finish_reason: str | None
    usage: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Tokens:
    """What replies cost; `unknown` is the number of replies without a count."""

    replies: int = 0
    input: int = 0
    output: int = 0
    unknown: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(*map(operator.add, astuple(self), astuple(other)))

    def __sub__(self, other: Tokens) -> Tokens:
        return Tokens(*map(operator.sub, astuple(self), astuple(other)))

    @staticmethod
    def of(usage: dict[str, int]) -> Tokens:
        """The tokens of one reply."""
        given = plausible(usage.get("prompt_tokens")), plausible(usage.get("completion_tokens"))
        return Tokens(1, given[0] or 0, given[1] or 0, int(None in given))


@dataclass(frozen=True)
class Batch:
    """A batch that was submitted: the digests of its requests; `ended` is its last status once it is merged."""

    model: str
    requests: tuple[str, ...]
    ended: str | None = None


@dataclass(frozen=True)
class Intent:
    """A batch that was about to be submitted: the digests of its requests, and the server's id of its input file."""

    model: str
    requests: tuple[str, ...]
    file: str


@dataclass
class Records:
    """What a log holds. `whole_bytes` is the length of its whole lines, `size` that of the file."""

    answers: dict[str, Reply] = field(default_factory=dict)
    wrote: set[str] = field(default_factory=set)
    written_by: dict[str, str] = field(default_factory=dict)  # sha256 of a description file -> model, where known
    tokens: dict[str, Tokens] = field(default_factory=dict)  # by model, of every reply that was paid
    batches: dict[str, Batch] = field(default_factory=dict)  # by id
    intents: dict[str, Intent] = field(default_factory=dict)  # by id, of submissions whose end is not known
    unusable: dict[tuple[str, str], str] = field(default_factory=dict)  # (request, batch) -> reason
    unreadable: int = 0
    whole_bytes: int = 0
    size: int = 0

    def pay(self, model: str, usage: dict[str, int]) -> None:
        self.tokens[model] = self.tokens.get(model, Tokens()) + Tokens.of(usage)

    def open_batches(self) -> dict[str, Batch]:
        """Batches whose results are not in the log yet."""
        return {key: batch for key, batch in self.batches.items() if batch.ended is None}

    def under_way(self) -> set[str]:
        """Digests of requests that are in an open batch and have no answer."""
        sent = {digest for batch in self.open_batches().values() for digest in batch.requests}
        return sent - self.answers.keys()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_log(path: Path) -> Records:
    """Read a log; a missing file is an empty log, and a torn last line is ignored.

    Raises:
        UserError: the log is a link whose target is gone, or no file.
    """
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path} is a link to a file that is gone; fetch it with `dvc pull` or delete the link")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a file; move it away")
    content = path.read_bytes() if path.exists() else b""
    records = Records(size=len(content))
    lines = content.split(b"\n")
    torn = lines.pop()
    for line in lines:
        if not _add(records, line) and line.strip():
            records.unreadable += 1
    # A record that only lacks its line feed has been paid for as well.
    records.whole_bytes = len(content) if _add(records, torn) else len(content) - len(torn)
    return records


def _add(records: Records, line: bytes) -> bool:
    """Take one line into `records`; False if it is not a record. The first answer to a request counts."""
    try:
        record = json.loads(line)
        if record == HEADER:
            return True
        if "wrote" in record:
            content, model = _text(record["wrote"]), record.get("model") or _only_model(records)
            records.wrote.add(content)
            if model:
                records.written_by[content] = _text(model)
        elif "copied" in record:
            records.written_by[_text(record["copied"])] = _text(record["model"])
        elif "unusable" in record:
            key = _text(record["request"]), _text(record["batch"])
            reason = _text(record["unusable"])
            records.pay(_text(record["model"]), record["usage"])
            records.unusable[key] = reason
        elif "ended" in record:
            name = _text(record["batch"])
            records.batches[name] = replace(records.batches[name], ended=_text(record["ended"]))
        elif "batch" in record:
            records.batches[_text(record["batch"])] = Batch(_text(record["model"]), _texts(record["requests"]))
            records.intents.pop(record.get("intent"), None)
        elif "not_taken" in record:
            records.intents.pop(record["intent"], None)
        elif "intent" in record:
            intent = Intent(_text(record["model"]), _texts(record["requests"]), _text(record["file"]))
            records.intents[_text(record["intent"])] = intent
        else:
            ended = record["finish_reason"]
            answer, digest = _text(record["answer"]), _text(record["request"])
            reply = Reply(answer, None if ended is None else _text(ended), record.get("usage") or {})
            records.pay(_text(record.get("model", "")), reply.usage)
            records.answers.setdefault(digest, reply)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False
    return True


def _only_model(records: Records) -> str:
    """The model of all replies so far; empty if there are several. Earlier versions did not note who wrote a file."""
    models = [model for model in records.tokens if model]
    return models[0] if len(models) == 1 else ""


def _text(value: Any) -> str:
    """A text of a log, which may hold anything.

    Raises:
        TypeError: no text.
        ValueError: half of a character in it, which no other file can hold.
    """
    if not isinstance(value, str):
        raise TypeError("not a text")
    value.encode()
    return value


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError("not a list")
    return tuple(map(_text, values))


def ensure_log(path: Path) -> None:
    """Create a log without answers if there is none, because the pipeline always lists it as an output."""
    if not path.exists():
        tables.write_text(path, json.dumps(HEADER) + "\n")


class LogWriter:
    """Appends to a log, which it locks; `records` is what it held when opened.

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
        with _named(self.path):
            self._check_room()
            self._end_with_line_feed()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _named(self.path):
            os.close(self._descriptor)

    def _check_room(self) -> None:
        """Reserve room for an answer and give it back, so that a full disk is found before anything is paid."""
        try:
            os.posix_fallocate(self._descriptor, self.records.size, MOST_ANSWER)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV):  # cannot be asked for there
                raise
        finally:
            os.ftruncate(self._descriptor, self.records.size)

    def _end_with_line_feed(self) -> None:
        """Make the log end with a line feed: complete the last record, or cut a torn one."""
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

    def add_answer(self, request: Asked, reply: Reply, *, sync: bool = True) -> None:
        """Append an answer; unless `sync` is false it is on the disk when this returns."""
        self.add_answer_to(request.digest, request.model, reply, request.about, sync=sync)

    def add_answer_to(
        self, digest: str, model: str, reply: Reply, about: dict[str, Any] | None = None, *, sync: bool = True
    ) -> None:
        """Append an answer to a request that is known only by its digest."""
        self.records.answers.setdefault(digest, reply)
        self.records.pay(model, reply.usage)
        said = {"answer": reply.answer, "finish_reason": reply.finish_reason, "usage": reply.usage}
        self._append({"request": digest, "model": model} | (about or {}) | said, sync=sync)

    def add_unusable(self, digest: str, model: str, reason: str, usage: dict[str, int], batch: str = "") -> None:
        """Append what a reply without an answer cost, once where it is read from a batch; it is asked for again."""
        if batch and (digest, batch) in self.records.unusable:
            return
        self.records.unusable[digest, batch] = reason
        self.records.pay(model, usage)
        about = {"request": digest, "model": model, "usage": usage, "batch": batch}
        self._append({"unusable": reason} | about, sync=not batch)

    def add_intent(self, intent: str, model: str, requests: Sequence[str], file: str) -> None:
        """Append that a batch of these requests' digests is about to be submitted."""
        self.records.intents[intent] = Intent(model, tuple(requests), file)
        self._append({"intent": intent, "model": model, "file": file, "requests": requests})

    def add_not_taken(self, intent: str, why: str) -> None:
        """Append that the server did not take the batch that was about to be submitted."""
        self.records.intents.pop(intent, None)
        self._append({"intent": intent, "not_taken": why})

    def add_batch(self, batch: str, model: str, requests: Sequence[str], intent: str | None = None) -> None:
        """Append that a batch of these requests' digests was submitted."""
        self.records.batches[batch] = Batch(model, tuple(requests))
        self.records.intents.pop(intent or "", None)
        self._append({"batch": batch, "model": model, "intent": intent, "requests": requests})

    def add_ended(self, batch: str, status: str) -> None:
        """Append that a batch has ended and all its results are in the log."""
        self.records.batches[batch] = replace(self.records.batches[batch], ended=status)
        self._append({"batch": batch, "ended": status})

    def add_wrote(self, target: Path, content: bytes, model: str | None) -> None:
        """Append that `content`, from answers of `model` if they are of one, is about to be written to `target`."""
        self._append({"wrote": sha256(content), "file": target.as_posix()} | ({"model": model} if model else {}))

    def add_copied(self, target: Path, content: bytes, model: str) -> None:
        """Append that `content`, which `model` wrote for another data set, is about to be copied to `target`."""
        self._append({"copied": sha256(content), "file": target.as_posix(), "model": model})

    def _append(self, record: dict[str, Any], *, sync: bool = True) -> None:
        text = json.dumps(record | {"time": round(time.time(), 3)}, ensure_ascii=False)
        self._write(text.encode() + b"\n", sync)

    def _write(self, line: bytes, sync: bool = True) -> None:
        with _named(self.path):
            before = os.fstat(self._descriptor).st_size
            left = line
            try:
                while left:
                    left = left[os.write(self._descriptor, left) :]
            except OSError:
                with suppress(OSError):  # the next run cuts a torn line as well
                    os.ftruncate(self._descriptor, before)
                raise
            if sync:
                os.fsync(self._descriptor)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Around what is done to a log by its descriptor, whose errors name no file."""
    try:
        yield
    except OSError as error:
        why = (error.strerror or "an error").lower()
        raise UserError(f"{path} cannot be written: {why}; correct this and run again to continue") from None


def _make_private(path: Path) -> None:
    """Replace a link into a cache, or a file that may not be written, by a writable copy of its own."""
    if not path.exists():
        return
    linked = path.is_symlink() or path.stat().st_nlink > 1
    # The mode and not os.access: to the superuser every file is writable, a protected one included.
    if linked or not path.stat().st_mode & 0o200:
        with files.replacing(path) as temporary:
            shutil.copyfile(path, temporary)
            temporary.chmod(0o644)
