"""A server that means harm: it sends the key back in every field, or more than anybody can hold."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from describe_project import JSON, answers, make_project, run_here
from openai_server import KEY, Endpoint

from stages.common.errors import UserError
from stages.common.received import without_key
from stages.describe import batch

SECRET = "k+y/with&odd=\"characters'<1>"
LVLM = "vlm"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_project(tmp_path, max_retries=0, batch_poll=0.02)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(batch, "LIST_LAG", 0.2)
    return tmp_path


def forms(key: str) -> list[str]:
    """What a server may make of the key, as it stands within a string of JSON."""
    encoded = [base64.b64encode(b"x" * before + key.encode() + b"yz").decode() for before in range(3)]
    escaped = "".join(f"\\u{ord(c):04x}" for c in key)
    return [json.dumps(key)[1:-1], quote(key, safe=""), escaped, *encoded, key.lower().replace('"', '\\"')]


@pytest.mark.parametrize("key", [KEY, SECRET])
def test_no_form_of_the_key_is_left(key: str) -> None:
    for form in forms(key):
        found = json.loads(without_key(f'{{"a{form}": ["b\\n{form}"], "c": 1e3}}'.encode(), key))
        (first, second), (third,) = list(found), found[next(iter(found))]
        for text in (first, third):
            assert "***" in text and len(text) < 16, form
        assert second == "c"
    assert without_key(b'{"open": "\\"\\"' * 100_000 + b"\\", key)  # ends at once


def completion(said: str, **more: Any) -> str:
    """A chat completion with `said` in every field, names included."""
    usage = {"prompt_tokens": 7, "completion_tokens": 5, said: 1, f"a {said}": {said: said}}
    message = {"role": said, "content": f"It is red, {said}.", "refusal": None, said: said}
    choice = {"index": 0, "finish_reason": said, "message": message, "text": message["content"], said: said}
    return json.dumps({"id": said, "model": said, said: said, "choices": [choice], "usage": usage} | more)


def echoing() -> dict[str, bytes]:
    """Replies by name: completions and faults, with each form of the key in every field."""
    replies = {}
    for number, form in enumerate(forms(KEY)):
        fault = {"message": "FORM", "code": "FORM", "type": "FORM", "param": "FORM"}
        for name, text in {
            "answer": completion("FORM"),
            "fault": json.dumps({"error": fault, "FORM": 1}),
            "coded": json.dumps({"error": {"message": "FORM", "code": 429}}),
            "page": "<p>FORM</p>",
            "filter": json.dumps({"choices": [{"finish_reason": "content_filter"}], "usage": {"FORM": 1}}),
            "stream": 'data: {"error": "FORM"}',
            "none": '{"choices": [], "detail": "FORM"}',
        }.items():
            if name == "page" and "\\u" in form:
                continue  # no escape of JSON's in a page
            replies[f"{name} {number}"] = text.replace("FORM", form).encode()
    return replies


def assert_nowhere(folder: Path, *told: str) -> None:
    written = [path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()]
    for form in (KEY, *forms(KEY)):
        assert not any(form in text for text in [*told, *written]), form


@pytest.mark.parametrize("name", echoing())
def test_key_in_every_field_of_a_reply_is_nowhere(
    name: str, folder: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.raw = echoing()
    endpoint.fault = lambda prompt, before: name
    if name.startswith("answer"):
        run_here()
        assert "red" in JSON.read_text() and answers()[0]["usage"] == {"prompt_tokens": 7, "completion_tokens": 5}
        told = ""
    else:
        with pytest.raises(UserError) as error:
            run_here()
        told = str(error.value)
    assert_nowhere(folder, told, *capsys.readouterr())


def echo_in_batches(endpoint: Endpoint, change: Callable[[str, dict[str, Any]], dict[str, Any] | None]) -> None:
    """Let `change` alter each JSON object of a response about files and batches, given what was asked for."""
    usual = endpoint.batches.respond

    def respond(method: str, path: str, content_type: str, content: bytes) -> tuple[int, bytes]:
        status, sent = usual(method, path.replace(KEY, ""), content_type, content)
        found = [change(f"{method} {path}", json.loads(line)) for line in sent.splitlines()]
        return status, b"\n".join(json.dumps(line).encode() for line in found if line is not None)

    endpoint.batches.respond = respond  # type: ignore[method-assign]


def test_key_in_every_field_of_a_batch_is_nowhere(
    folder: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    make_project(folder, mode="batch", max_retries=0, batch_poll=0.02)

    def change(asked: str, found: dict[str, Any]) -> dict[str, Any]:
        if not asked.endswith("/content"):
            errors = {"object": KEY, "data": [{"code": KEY, "message": KEY, "param": KEY, "line": KEY}]}
            return found | {KEY: KEY, "object": KEY, "errors": errors, "model": KEY}
        if found["custom_id"] > "8":
            code = KEY if found["custom_id"] > "c" else None
            return found | {"id": KEY, KEY: KEY, "response": None, "error": {"code": code, "message": KEY}}
        body = json.loads(completion(KEY))
        return found | {"id": KEY, KEY: KEY, "response": {"status_code": 200, "request_id": KEY, "body": body}}

    echo_in_batches(endpoint, change)
    with pytest.raises(UserError) as error:
        run_here()
    assert 0 < len(answers()) < 8
    assert_nowhere(folder, str(error.value), *capsys.readouterr())


@pytest.mark.parametrize("where", ["id", "custom_id", "status", "output_file_id", "counts", "error"])
def test_key_in_a_name_of_a_batch_ends_in_one_line(
    where: str, folder: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    make_project(folder, mode="batch", max_retries=0, batch_poll=0.02)

    def change(asked: str, found: dict[str, Any]) -> dict[str, Any]:
        if where == "custom_id":
            return found | {"custom_id": f"{found['custom_id']}{KEY}"} if "custom_id" in found else found
        if "batches" not in asked or "status" not in found:
            return found
        if where == "status":
            return found | {
                "status": KEY if asked.startswith("POST") else "failed",
                "errors": {"data": [{"message": [KEY]}]},
            }
        return found | ({"request_counts": {"completed": KEY}, "errors": KEY} if where == "counts" else {where: KEY})

    if where == "error":
        endpoint.raw = {"error": json.dumps({"error": {"message": KEY, "code": KEY}}).encode()}
        endpoint.batch_fault = lambda method, path, before: "error"
    echo_in_batches(endpoint, change)
    told = []
    for _ in range(2):
        with pytest.raises(UserError) as error:
            run_here()
        told.append(str(error.value))
    assert "\n" not in told[0] and len(endpoint.batches.batches) <= 2
    if where == "id":  # paid once: what was submitted is not submitted again
        assert "id that cannot be used" in told[1] and len(endpoint.batches.batches) == 1
    assert_nowhere(folder, *told, *capsys.readouterr())
