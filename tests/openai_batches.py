"""The files and batches of the local stand-in for an OpenAI-compatible endpoint."""

from __future__ import annotations

import email
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

Body = dict[str, Any]
Answer = Callable[[Body, bool], tuple[int, Body] | None]
"""A request's body and whether it is a chat -> status and body of its response; None where it is never processed."""


class Batches:
    """Batches stay under way for `looks` looks and then end as `end` says; `torn` cuts each line that mentions it.

    A list has `page` batches a page, and leaves out a batch that was made less than `lag` lists before.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.looks = 1
        self.end = "completed"
        self.torn: str | None = None
        self.page = 100
        self.lag = self.lists = 0
        self.made_at: dict[str, int] = {}
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, Body] = {}
        self.looked: dict[str, int] = {}

    def respond(self, method: str, path: str, content_type: str, content: bytes) -> tuple[int, bytes]:
        """Status and body of the response to a request under /v1/files or /v1/batches."""
        parts = path.split("?")[0].removeprefix("/v1/").split("/")
        if parts == ["files"]:
            return 200, _json(self._upload(content_type, content))
        if parts[0] == "files" and parts[-1] == "content":
            return 200, self.files[parts[1]]
        if parts == ["batches"] and method == "POST":
            return 200, _json(self._create(json.loads(content)))
        if parts == ["batches"]:
            return 200, _json(self._list(parse_qs(urlsplit(path).query)))
        if parts[1] in self.batches:
            return 200, _json(self._look(parts[1]))
        return 404, _json({"error": {"message": "no such batch"}})

    def _list(self, query: dict[str, list[str]]) -> Body:
        self.lists += "after" not in query
        newest = [batch for batch in self.batches.values() if self.lists - self.made_at[batch["id"]] > self.lag][::-1]
        names = [batch["id"] for batch in newest]
        start = names.index(query["after"][0]) + 1 if "after" in query else 0
        shown = newest[start : start + self.page]
        return {"object": "list", "data": shown, "has_more": len(newest) > start + self.page}

    def _upload(self, content_type: str, content: bytes) -> Body:
        form = email.message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + content)
        fields: Any = {part.get_param("name", header="content-disposition"): part for part in form.walk()}
        assert fields["purpose"].get_payload() == "batch"
        return self._add_file(fields["file"].get_payload(decode=True))

    def _add_file(self, content: bytes) -> Body:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return {"id": name, "object": "file", "bytes": len(content), "created_at": 0, "filename": "f", "purpose": "b"}

    def _create(self, body: Body) -> Body:
        name = f"batch_{len(self.batches)}"
        lines = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
        assert {(line["method"], line["url"]) for line in lines} == {("POST", body["endpoint"])}
        counts = {"total": len(lines), "completed": 0, "failed": 0}
        self.batches[name] = body | {"id": name, "object": "batch", "status": "in_progress", "request_counts": counts}
        self.batches[name]["created_at"] = int(time.time())
        self.made_at[name] = self.lists
        return self.batches[name]

    def _look(self, name: str) -> Body:
        batch = self.batches[name]
        self.looked[name] = self.looked.get(name, 0) + 1
        if self.looked[name] > self.looks and batch["status"] == "in_progress":
            batch["status"] = self.end
            if self.end == "failed":
                batch["errors"] = {"object": "list", "data": [{"code": "x", "message": "line 1 is wrong"}]}
            else:
                self._process(batch)
        return batch

    def _process(self, batch: Body) -> None:
        output: list[Body] = []
        errors: list[Body] = []
        for line in map(json.loads, self.files[batch["input_file_id"]].splitlines()):
            result: Body = {"id": "x", "custom_id": line["custom_id"], "response": None, "error": None}
            response = self.answer(line["body"], line["url"] == "/v1/chat/completions")
            if response is None and self.end == "completed":
                continue
            if response is None:
                errors.append(result | {"error": {"code": f"batch_{self.end}", "message": "too late"}})
                continue
            status, body = response
            result["response"] = {"status_code": status, "request_id": "r", "body": body}
            (output if status == 200 else errors).append(result)
        for key, lines in (("output_file_id", output), ("error_file_id", errors)):
            texts = [_json(line) for line in reversed(lines)]  # in no promised order
            cut = [text[:-9] if self.torn and self.torn.encode() in text else text for text in texts]
            batch[key] = self._add_file(b"\n".join([*cut, b""]))["id"] if lines else None
        batch["request_counts"]["completed"] = len(output)


def _json(value: Body) -> bytes:
    return json.dumps(value).encode()
