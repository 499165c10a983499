"""The endpoint of the campaign: the stand-in of the tests in a process of its own, with random faults."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import openai_server
from openai_server import KEY, Endpoint

QUIET, STOP, URL, SUBMITTED, COUNTS = "quiet", "stop", "url", "submitted", "counts.json"
"""Files through which the endpoint is told to fail no more and to end, and tells its address and what it did."""
SHARE = 0.45
"""Of all requests that meet a fault."""
HUGE = 3 << 20
MOMENT = 0.05
"""Seconds between a batch that is there and the answer that says so."""
LAG = 1.0
"""Seconds before a new batch stands in the list of batches."""

USABLE = ("key in finish_reason", "key in usage", "key in id", "odd counts", "negative counts")
"""Faults of answers that are whole and are kept, so that they must not be paid for again."""
BROKEN = ("empty", "null", "a number", "a list", "huge", "huge and broken", "error with 200", "html", "truncated")
NOT_SENT = ("400", "401", "404", "429", "500", "502", "quota", "413 page", "reset", "no choices", "latin-1")
SLOW = ("slow", "drip")
REFUSED = ("filtered", "refused", "no text", "azure filter")
"""FINER's questions take these as answers: an LVLM that refuses is a result."""
FAULTS = {
    "direct": (*USABLE, *BROKEN * 2, *NOT_SENT, *SLOW, *REFUSED),
    "batch": (*USABLE, "error with 200", "huge", "500", "429", "dropped", *REFUSED),
    "ask": (*USABLE, *BROKEN * 2, *SLOW, "401", "404", "429", "500", "502", "quota", "reset", "no choices", "latin-1"),
}
BATCH_FAULTS = ("500", "502", "429", "reset", "lost", "lost", "half", "half", "html", "empty", "null", "a list")
whole_completion = openai_server._completion


def completion(chat: bool, text: str, fault: str | None, images: int = 0) -> bytes:
    """A response's body, with the faults that the tests' endpoint does not know."""
    plain = {
        "empty": b"",
        "null": b"null",
        "a number": b"7",
        "a list": b"[]",
        "huge and broken": b'{"choices": [{"message": {"content": "' + b"x" * HUGE,
        "error with 200": json.dumps({"error": {"message": f"no such key {KEY}", "code": KEY}}).encode(),
    }
    if fault in plain:
        return plain[fault]
    if fault not in (*USABLE, "huge"):
        return whole_completion(chat, text, fault, images)
    body: dict[str, Any] = json.loads(whole_completion(chat, text, None, images))
    choice = body["choices"][0]
    if fault == "huge":
        said = {"message": {"role": "assistant", "content": "(" * HUGE}} if chat else {"text": "(" * HUGE}
        choice |= said
    elif fault == "key in finish_reason":
        choice["finish_reason"] = f"stop {KEY}"
    elif fault == "key in usage":
        body["usage"][KEY] = 1
    elif fault == "key in id":
        body["id"] = body["model"] = KEY
    else:
        odd = 10**18 if fault == "odd counts" else -5
        body["usage"] |= {"prompt_tokens": odd, "completion_tokens": odd}
    return json.dumps(body).encode()


class Faults:
    """Draws the fault of each request and counts what was sent."""

    def __init__(self, folder: Path, mode: str, seed: list[int]) -> None:
        self.folder, self.mode = folder, mode
        self.rng, self.lock = np.random.default_rng(seed), threading.Lock()
        self.met: Counter[str] = Counter()
        self.usable: Counter[str] = Counter()

    def quiet(self) -> bool:
        return (self.folder / QUIET).exists()

    def draw(self, kinds: tuple[str, ...]) -> str | None:
        if self.quiet() or self.rng.random() >= SHARE:
            return None
        fault = kinds[int(self.rng.integers(len(kinds)))]
        self.met[fault] += 1
        return fault

    def of_request(self, prompt: str, before: int) -> str | None:
        with self.lock:
            fault = self.draw(FAULTS[self.mode])
            self.usable[prompt] += fault is None or fault in USABLE
            return fault

    def of_batches(self, method: str, path: str, before: int) -> str | None:
        with self.lock:
            return self.draw(BATCH_FAULTS)


def watched(endpoint: Endpoint, folder: Path, lag: float) -> None:
    """A new batch is told of before its submission is answered, and stands in the list only after a while."""
    respond, made = endpoint.batches.respond, dict[str, float]()

    def respond_late(method: str, path: str, content_type: str, content: bytes) -> tuple[int, bytes]:
        status, answer = respond(method, path, content_type, content)
        if method == "POST" and path.split("?")[0] == "/v1/batches":
            made[json.loads(answer)["id"]] = time.monotonic()
            (folder / SUBMITTED).touch()
            time.sleep(MOMENT)
        if method == "GET" and path.split("?")[0] == "/v1/batches":
            listed = json.loads(answer)
            listed["data"] = [one for one in listed["data"] if time.monotonic() - made[one["id"]] > lag]
            answer = json.dumps(listed).encode()
        return status, answer

    endpoint.batches.respond = respond_late  # type: ignore[method-assign]


def serve(folder: Path, mode: str, seed: list[int], lag: bool) -> None:
    """In a child: serve until the file STOP is there, then write what was done."""
    openai_server._completion = completion
    faults = Faults(folder, mode, seed)
    with Endpoint() as endpoint:
        endpoint.fault, endpoint.batch_fault = faults.of_request, faults.of_batches
        watched(endpoint, folder, LAG if lag else 0.0)
        (folder / f"{URL}.new").write_text(endpoint.url)
        (folder / f"{URL}.new").rename(folder / URL)
        parent = os.getppid()
        while not (folder / STOP).exists() and os.getppid() == parent:
            time.sleep(0.01)
        for batch in endpoint.batches.batches.values():
            if batch["status"] == "in_progress":  # whoever submits it pays, even if nobody fetches its results
                endpoint.batches._process(batch)
    counts = {"met": faults.met, "twice": {prompt: n for prompt, n in faults.usable.items() if n > 1}}
    (folder / COUNTS).write_text(json.dumps(counts))
