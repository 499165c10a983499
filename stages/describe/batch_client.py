"""The client of the Batch API: what arrives is bounded, freed from the key, and checked before it is used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2  # what the openai client is built on
import openai
from openai.types import Batch, FileObject

from stages.common import address, interrupts
from stages.common.endpoint import honest
from stages.common.received import MOST_RECEIVED, rebuilt
from stages.common.replies import BAD_GATEWAY, words

NO_SUCH = (404, 405, 501)
"""Statuses of a server that does not know the batch, or has no Batch API."""


class BrokenAnswer(openai.OpenAIError):
    """An answer about files or batches that is not whole JSON, or not of the expected shape."""


class ShortFile(BrokenAnswer):
    """A file of results that lacks some of them, however often it is fetched."""

    def __init__(self, batch: str) -> None:
        super().__init__(f"the results of {batch} are not whole")
        self.batch = batch


PASSING = (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError, BrokenAnswer)
"""Failures that may pass."""


class WrongId(openai.OpenAIError):
    """An id of a file or batch that cannot be used in an address."""


class HttpClient(openai.DefaultHttpxClient):
    """Bounds what arrives and frees it from the key.

    Gives faults that are reported with HTTP 200, and pages in place of JSON, the status that they should have.
    """

    def __init__(self, key: str) -> None:
        with address.using_environment():
            super().__init__()
        self._key = key

    def send(self, request: httpx2.Request, **kwargs: Any) -> httpx2.Response:
        interrupts.check()  # after a signal nothing more is sent
        options = kwargs | {"stream": True, "follow_redirects": False}
        stream, followed = super().send(request, **options), 0
        while (following := address.next_request(stream, followed)) is not None:
            stream.close()
            stream, followed = super().send(following, **options), followed + 1
        if request.url.path.endswith("/content") and stream.status_code == httpx2.codes.OK:
            return stream  # a file of results, with the faults of single requests; it is read line by line
        content = bytearray()
        try:
            for piece in stream.iter_bytes():
                content += piece
                if len(content) > MOST_RECEIVED:
                    break
        finally:
            stream.close()
        response = rebuilt(stream, bytes(content), self._key)
        if response.status_code == httpx2.codes.OK and response.content.lstrip().startswith(b"<"):
            error = {"message": words(response.content)}
            return httpx2.Response(BAD_GATEWAY, json={"error": error}, request=response.request)
        return honest(response)


@contextmanager
def reading() -> Iterator[None]:
    """Around calls of the client, which checks nothing that it receives: half an answer fails where it is used."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, AssertionError):
        raise BrokenAnswer("the answer was not whole") from None


def completed(batch: Batch) -> int:
    """How many of its requests are answered, as far as the server says."""
    count = batch.request_counts.completed if batch.request_counts else 0
    return count if isinstance(count, int) else 0


def id_of(made: Batch | FileObject) -> str:
    """The id of a batch or file, as `usable`."""
    return usable(made.id)


def usable(name: Any) -> str:
    """The id of a batch or file. A server may put anything there.

    Raises:
        WrongId: it cannot be used in an address.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_:-][A-Za-z0-9_.:-]{0,199}", name):
        raise WrongId("the endpoint gave a file or batch an id that cannot be used")
    return name


def metadata_of(batch: Batch) -> dict[str, Any]:
    """The metadata that the batch was submitted with; empty if the server sends something else."""
    return batch.metadata if isinstance(batch.metadata, dict) else {}


def may_be_taken(error: openai.OpenAIError) -> bool:
    """Whether a submission that failed in this way may have been taken."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code == 408 or error.status_code >= 500
    return True


def pause_after(error: openai.OpenAIError, attempt: int) -> float:
    """Seconds to wait after a refused submission: what the endpoint asks for, or ever longer."""
    asked = error.response.headers.get("retry-after", "") if isinstance(error, openai.APIStatusError) else ""
    return min(float(asked), 60.0) if re.fullmatch(r"[0-9]+(\.[0-9]*)?", asked) else min(0.5 * 2**attempt, 8.0)
