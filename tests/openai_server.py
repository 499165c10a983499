"""A local stand-in for an OpenAI-compatible endpoint that can be told to fail in the ways that real ones do."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from openai_batches import Batches

Body = dict[str, Any]
Fault = str
"""Name of a failure: "429", "500", "reset", "truncated", "no choices", "filtered", "no text", "latin-1", "cut"..."""

REFUSALS = {
    "400": (400, {"message": "unsupported parameter"}),
    "401": (401, {"message": "Incorrect API key provided: {key}, which starts {start}", "code": "invalid_api_key"}),
    "404": (404, {"message": "no such model", "code": "model_not_found"}),
    "429": (429, {"message": "slow down", "code": "rate_limit_exceeded"}),
    "429 bare": (429, {"message": "slow down", "code": "rate_limit_exceeded"}),
    "429 later": (429, {"message": "slow down", "code": "rate_limit_exceeded"}),
    "500": (500, {"message": "exploded with {key}"}),
    "502": (502, {"message": "bad gateway"}),
    "quota": (429, {"message": "pay first", "code": "insufficient_quota"}),
    "azure filter": (400, {"message": "filtered", "code": "content_filter"}),
}

KEY = "sk-proj-Q7vZk2mXbT94hLwN"
"""A key as OpenAI gives them, which must appear nowhere."""


class Endpoint:
    """Serves /v1/chat/completions, /v1/completions, /v1/files and /v1/batches on 127.0.0.1 from a thread.

    `answer` makes an answer of a prompt. `fault` is asked for each request, with its prompt and how often that prompt
    was asked before; the failure it names is injected. `delay` is in seconds. `batch_fault` is asked for each request
    about files and batches, with its method, path and how often that was asked for before; "lost" does what was asked
    for and hangs up, "half" sends half of the answer. `raw` are faults of a test's own: bytes that are sent with HTTP
    200, in which {key} is the client's key. Questions are redirected once to the address `redirect`. An image counts
    `image_tokens` tokens.
    """

    def __init__(self) -> None:
        self.answer: Callable[[str], str] = lambda prompt: f"Something is seen about {prompt}."
        self.fault: Callable[[str, int], Fault | None] = lambda prompt, before: None
        self.batch_fault: Callable[[str, str, int], Fault | None] = lambda method, path, before: None
        self.batches = Batches(self._in_batch)
        self.raw: dict[Fault, bytes] = {}
        self.redirect: str | None = None
        self.delay = 0.0
        self.image_tokens = 100
        self.asked: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        self.bodies: list[Body] = []
        self.running = self.most_running = 0
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Endpoint:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _in_batch(self, body: Body, chat: bool) -> tuple[int, Body] | None:
        prompt = _prompt(body)
        fault = self.fault(prompt, self.asked[prompt])
        self.asked[prompt] += 1
        if fault == "dropped":
            return None
        if fault in REFUSALS:
            status, error = REFUSALS[fault]
            return status, {"error": error}
        if fault is None:
            self.paid[prompt] += 1
        return 200, json.loads(_completion(chat, self.answer(prompt), fault))

    def forget(self) -> None:
        """Start counting again."""
        self.asked.clear()
        self.paid.clear()
        self.bodies.clear()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed hang up in the middle; that is meant."""


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self.serve_batches(b"")

        def serve_batches(self, content: bytes) -> None:
            with endpoint.lock:
                asked = f"{self.command} {self.path.split('?')[0]}"
                fault = endpoint.batch_fault(self.command, self.path, endpoint.asked[asked])
                endpoint.asked[asked] += 1
                if fault not in (None, "lost", "half"):
                    self.respond(True, asked, fault)
                    return
                content_type = self.headers["Content-Type"] or ""
                status, answer = endpoint.batches.respond(self.command, self.path, content_type, content)
            if fault == "lost":
                self.respond(True, asked, "reset")
            else:
                self.send(status, answer[: len(answer) // 2] if fault == "half" else answer, {})

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path.startswith(("/v1/files", "/v1/batches")):
                self.serve_batches(content)
                return
            if endpoint.redirect is not None and "?" not in self.path:
                self.send(307, b"", {"Location": f"{endpoint.redirect}{self.path.removeprefix('/v1')}?again"})
                return
            self.path = self.path.removesuffix("?again")
            body: Body = json.loads(content)
            chat = self.path == "/v1/chat/completions"
            prompt = _prompt(body)
            with endpoint.lock:
                before = endpoint.asked[prompt]
                endpoint.asked[prompt] += 1
                endpoint.bodies.append(body)
                endpoint.running += 1
                endpoint.most_running = max(endpoint.most_running, endpoint.running)
            try:
                time.sleep(endpoint.delay)
                images = endpoint.image_tokens * _images(body)
                self.respond(chat, prompt, endpoint.fault(prompt, before), images)
            finally:
                with endpoint.lock:
                    endpoint.running -= 1

        def respond(self, chat: bool, prompt: str, fault: Fault | None, images: int = 0) -> None:
            if fault == "reset":
                # An immediate reset instead of an orderly end.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return
            if fault == "413 page":
                self.send(413, b"<html><body>413 Request Entity Too Large</body></html>", {"Content-Type": "text/html"})
                return
            if fault == "slow":
                time.sleep(3)
            if fault in REFUSALS:
                key = self.headers["Authorization"].removeprefix("Bearer ")
                status, error = REFUSALS[fault]
                text = json.dumps({"error": error}).replace("{key}", key).replace("{start}", key[:9] + "****")
                waits = {"429": "0.05", "429 later": "1.5"}
                self.send(status, text.encode(), {"Retry-After": waits[fault]} if fault in waits else {})
                return
            if fault in endpoint.raw:
                key = self.headers["Authorization"].removeprefix("Bearer ")
                self.send(200, endpoint.raw[fault].replace(b"{key}", key.encode()), {})
                return
            completion = _completion(chat, endpoint.answer(prompt), fault, images)
            self.send(200, completion, {}, 0.05 if fault == "drip" else 0.0)
            if fault in (None, "cut"):
                with endpoint.lock:
                    endpoint.paid[prompt] += 1

        def send(self, status: int, content: bytes, headers: dict[str, str], drip: float = 0.0) -> None:
            """Send a response; with `drip`, a byte at a time with pauses of so many seconds."""
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            for piece in (content[i : i + 1] for i in range(len(content))) if drip else (content,):
                self.wfile.write(piece)
                time.sleep(drip)

    return Handler


def _parts(body: Body) -> list[Body]:
    """The typed parts of the whole conversation."""
    return [part for message in body["messages"] for part in message["content"] if isinstance(part, dict)]


def _images(body: Body) -> int:
    return sum(part["type"] == "image_url" for part in _parts(body)) if "messages" in body else 0


def _prompt(body: Body) -> str:
    """What was asked last; of a conversation with images, their digest as well."""
    if "messages" not in body:
        return str(body["prompt"])
    content = body["messages"][-1]["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    text = "".join(part["text"] for part in parts if part["type"] == "text")
    urls = [part["image_url"]["url"] for part in _parts(body) if part["type"] == "image_url"]
    return " ".join([text, *(hashlib.sha256(url.encode()).hexdigest()[:8] for url in urls)])


def _completion(chat: bool, text: str, fault: Fault | None, images: int = 0) -> bytes:
    content = None if fault in ("no text", "filtered", "refused", "refused uncounted") else text
    choice: Body = {
        "index": 0,
        "finish_reason": {"filtered": "content_filter", "cut": "length"}.get(fault or "", "stop"),
    }
    message: Body = {"role": "assistant", "content": content}
    if fault in ("refused", "refused uncounted"):
        message["refusal"] = "I cannot help with this image."
    choice |= {"message": message} if chat else {"text": content}
    usage: Body = {"prompt_tokens": 7 + images, "completion_tokens": 5, "total_tokens": 12 + images}
    usage["details"] = {"cached_tokens": 0}
    completion = {"id": "x", "choices": [] if fault == "no choices" else [choice], "usage": usage}
    if fault == "refused uncounted":
        del completion["usage"]
    whole = json.dumps(completion, ensure_ascii=False)
    if fault == "truncated":
        return whole[: len(whole) // 2].encode()
    if fault == "latin-1":
        return whole.replace("Something", "Caf\u00e9").encode("latin-1")
    if fault == "html":
        return b"<html>busy</html>"
    return whole.encode()
