"""score at size: reading ahead and writing behind."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import islice

import pytest

from stages.common.errors import UserError
from stages.common.overlap import WAITING, read_ahead, write_behind


def test_what_is_made_ahead_comes_in_order_and_its_error_when_it_is_due() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise UserError("the sixth")

    ahead = read_ahead(items())
    assert list(islice(ahead, 5)) == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="the sixth"):
        next(ahead)


def test_what_is_made_ahead_may_be_left_early() -> None:
    made = []

    def items() -> Iterator[int]:
        for item in range(100):
            made.append(item)
            yield item

    with closing(read_ahead(items())) as ahead:
        assert next(ahead) == 0
    assert len(made) <= 4, "no more is made than was under way"
    assert threads_named("read") == []


def test_what_is_written_behind_is_written_in_order_and_whole() -> None:
    written: list[int] = []
    with write_behind() as later:
        for item in range(20):
            later(written.append, item)
    assert written == list(range(20))
    assert threads_named("write") == []


def test_an_error_of_what_is_written_behind_is_raised() -> None:
    def refuse() -> None:
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"), write_behind() as later:
        later(refuse)
    asked: list[None] = []
    with pytest.raises(OSError, match="full"), write_behind() as later:
        asked.extend(later(refuse) for _ in range(100))
    assert len(asked) == WAITING, "a call that has to wait for it raises it"


def threads_named(prefix: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(prefix)]
