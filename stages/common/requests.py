"""One answer to ask an OpenAI-compatible endpoint for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

from stages.common.digests import digest

Api = Literal["chat", "completions"]


class Asked(Protocol):
    """What the endpoint and the response log need from a request."""

    @property
    def name(self) -> str:
        """What it is about, for messages: a class, an image."""

    @property
    def api(self) -> Api: ...

    @property
    def model(self) -> str: ...

    @property
    def body(self) -> dict[str, Any]:
        """What is sent."""

    @property
    def digest(self) -> str:
        """Key of the answer in the response log."""

    @property
    def about(self) -> dict[str, Any]:
        """What the log says about the request, for people."""


@dataclass(frozen=True)
class Request:
    """A request about a class. `body` is what is sent, `sample` numbers the answers to the same body."""

    name: str
    prompt: str
    sample: int
    api: Api
    body: dict[str, Any]

    @cached_property
    def digest(self) -> str:
        """Key of the answer in the response log: model, endpoint kind, messages, sampling settings, sample."""
        return digest({"api": self.api, "body": self.body, "sample": self.sample})

    @property
    def model(self) -> str:
        return str(self.body["model"])

    @property
    def about(self) -> dict[str, Any]:
        return {"class": self.name, "sample": self.sample, "prompt": self.prompt}
