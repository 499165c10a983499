"""Reading ahead and writing behind: the arithmetic waits for neither, as long as both keep up.

One thread each is enough, because PyArrow and Torch release the interpreter lock while they work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")

WAITING = 2
"""Items made in advance, or calls not yet done; enough to even out a slow one."""


def read_ahead(items: Iterator[Item]) -> Generator[Item, None, None]:
    """The same items in the same order, made in a thread; an error of theirs is raised when its item is due."""
    end: Any = object()
    with ThreadPoolExecutor(1, thread_name_prefix="read") as pool:
        upcoming = deque(pool.submit(next, items, end) for _ in range(WAITING))
        while (item := upcoming.popleft().result()) is not end:
            upcoming.append(pool.submit(next, items, end))
            yield item


@contextmanager
def write_behind() -> Iterator[Callable[..., None]]:
    """A function `later(work, *arguments)` that has a thread call `work(*arguments)`, one after the other.

    It waits if too many are pending. An error of a call is raised by a later one or at the end.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="write") as pool:
        pending: deque[Future[None]] = deque()

        def later(work: Callable[..., None], *arguments: Any) -> None:
            pending.append(pool.submit(work, *arguments))
            if len(pending) > WAITING:
                pending.popleft().result()

        yield later
        while pending:
            pending.popleft().result()
