"""Reading ahead, writing behind and computing beside: threads are enough, because PyArrow and Torch release the
interpreter lock while they work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Thread
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")
Made = TypeVar("Made")

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


def in_order(work: Callable[[Item], Made], items: Iterable[Item], threads: int) -> Iterator[Made]:
    """`map` in threads, in order, at most two items a thread ahead.

    Torch computes each item on one core. So the results do not depend on how many there are: a product that is shared
    among cores is rounded differently.
    """
    with ThreadPoolExecutor(threads, initializer=_on_one_core, initargs=(torch.get_num_threads(),)) as pool:
        ahead: deque[Future[Made]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(work, item))
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _on_one_core(others: int) -> None:
    """Limit this thread. Torch would have all later threads take over the limit, so a thread sets that back."""
    torch.get_num_threads()  # takes over what is set for all, which would otherwise happen later
    torch.set_num_threads(1)
    back = Thread(target=torch.set_num_threads, args=(others,))
    back.start()
    back.join()
