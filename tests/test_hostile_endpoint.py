"""A server that means harm: it sends the key back in every field, or more than anybody can hold."""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import math
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from describe_project import LOG, answers, log_lines, make_project, run_here
from openai_server import KEY, Endpoint

from stages.common.address import MOST_REDIRECTS, next_request
from stages.common.endpoint import api_key, ask_all
from stages.common.errors import OF_THE_MACHINE, UserError, naming
from stages.common.params import load_params
from stages.common.received import rebuilt, scrub, without_key
from stages.common.requests import Request
from stages.common.responses import LogWriter, Tokens, read_log
from stages.describe import batch
from stages.describe.clean import clean
from stages.finer.concepts.answers import NoAttributes, parse_attributes
from stages.finer.lists import clean_attributes

SECRET = "k+y/with&odd=\"characters'<1>"
COUNTS = {"prompt_tokens", "completion_tokens"}


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


def test_key_in_every_field_of_a_reply_is_nowhere(
    folder: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.common.endpoint.GIVE_UP_AFTER", 1000)
    endpoint.raw = echoing()
    endpoint.fault = lambda prompt, before: prompt
    body = {"model": "a-model"}
    requests = [
        Request(name, name, 0, "chat", body | {"messages": [{"role": "user", "content": name}]})
        for name in endpoint.raw
    ]
    with LogWriter(LOG) as log:
        outcome = ask_all(requests, load_params().describe, KEY, log)
    assert len(outcome.failures) + outcome.received == len(requests) and outcome.received == len(forms(KEY))
    assert all("red" in line["answer"] and set(line["usage"]) == COUNTS for line in answers())
    assert_nowhere(folder, *(f"{failure.reason} {failure.detail}" for failure in outcome.failures))


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
        if "batches" not in asked:
            return found
        if "data" in found:
            return found | {"data": [change(asked, listed) for listed in found["data"]]}
        status = KEY if asked.startswith("POST") else "failed"
        own: dict[str, dict[str, Any]] = {
            "id": {"id": KEY},
            "status": {"status": status, "errors": {"data": [{"message": [KEY]}]}},
            "output_file_id": {"output_file_id": KEY},
            "counts": {"request_counts": {"completed": KEY}, "errors": KEY},
            "error": {"error": KEY},
        }
        return found | own[where]

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


def test_a_batch_is_known_by_the_id_that_was_asked_for(folder: Path, endpoint: Endpoint) -> None:
    make_project(folder, mode="batch", max_retries=0, batch_poll=0.02)
    echo_in_batches(
        endpoint, lambda asked, found: found | {"id": "another"} if asked.startswith("GET /v1/batches/") else found
    )
    run_here()
    assert [line["batch"] for line in log_lines() if "ended" in line] == ["batch_0"] and len(answers()) == 8


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://user:hidden@host/v1", "user name or password"),
        ("https://hidden@host/v1", "user name or password"),
        ("https://host/v1?api-key=hidden", "'?' or '#'"),
        ("https://host/v1#hidden", "'?' or '#'"),
        ("https://host/v1?", "'?' or '#'"),
        ("hidden.host:8000/v1", "must begin with http"),
        ("ftp://hidden.host/v1", "must begin with http"),
        ("http://hidden host/v1", "a blank"),
        ("http://hidden\u200bhost/v1", "a blank"),
        ("http://host\\@hidden/v1", "a blank"),
        ("http:///hidden", "must name a host"),
        ("http://hidden:0/v1", "a port from 1 to 65535"),
        ("http://hidden:65536/v1", "must be an address"),
        ("http://[hidden/v1", "must be an address"),
        (f"https://host/{KEY}/v1", "holds the key"),
    ],
)
def test_an_address_with_what_does_not_belong_there_is_refused(
    url: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    for own, setting in ((None, "OPENAI_BASE_URL"), (url, "finer.endpoints.x.base_url")):
        with pytest.raises(UserError, match=re.escape(why)) as error:
            api_key("no key", url=own, setting=setting)
        told = str(error.value)
        assert told.startswith(setting) and "hidden" not in told and KEY not in told and "\n" not in told


@pytest.mark.parametrize("url", ["", "http://[::1]:8000/v1/", "HTTPS://xn--mnchen-3ya.example/a@b", "http://localhost"])
def test_an_address_as_it_should_be_is_taken(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", f" {url}\n")
    assert api_key("no key") == KEY


def test_nothing_in_the_environment_replaces_the_key_or_is_printed(
    folder: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".netrc").write_text("machine 127.0.0.1 login someone password secret\n")
    monkeypatch.setenv("NETRC", str(folder / ".netrc"))
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer another")
    endpoint.raw = {"echo": b'{"error": {"code": 401, "message": "{key}"}}'}
    endpoint.fault = lambda prompt, before: "echo"
    with pytest.raises(UserError, match=re.escape("***")) as error:  # the key came, and was taken out
        run_here()
    assert "another" not in str(error.value)
    for name, value in {
        "http_proxy": "http://me:hidden@host:port",
        "all_proxy": "gopher://me:hidden@host",
        "OPENAI_ORG_ID": "hidd\u00e9n",
        "SSL_CERT_FILE": "hidden.pem",
    }.items():
        with monkeypatch.context() as only:
            only.setenv(name, value)
            with pytest.raises(UserError, match=name.upper()) as error:
                run_here()
            assert "hidden" not in str(error.value) and "hidd\u00e9n" not in str(error.value)


@pytest.mark.parametrize(
    ("method", "status", "location", "followed"),
    [
        ("POST", 307, "/other", True),
        ("POST", 308, "https://host/v1", True),
        ("POST", 302, "/other", False),  # which would become a GET
        ("POST", 307, "http://elsewhere/v1", False),
        ("POST", 307, "http://host:81/v1", False),
        ("POST", 307, "http://me:word@host/v1", False),
        ("POST", 307, "http://[", False),
        ("GET", 302, "https://storage/results", True),
    ],
)
def test_redirects_take_no_key_and_no_prompt_elsewhere(method: str, status: int, location: str, followed: bool) -> None:
    answer = httpx2.MockTransport(lambda _: httpx2.Response(status, headers={"Location": location}))
    with httpx2.Client(transport=answer) as client:
        request = client.build_request(method, "http://host/v1", headers={"Authorization": f"Bearer {KEY}"})
        response = client.send(request, follow_redirects=False)
    following = next_request(response, 0)
    assert (following is not None) == followed and next_request(response, MOST_REDIRECTS) is None
    if following is not None and following.url.host != "host":
        assert "Authorization" not in following.headers
    assert KEY not in rebuilt(response, b"", KEY).text


def test_a_redirect_to_another_host_ends_asking(folder: Path, endpoint: Endpoint) -> None:
    endpoint.redirect = endpoint.url.replace("127.0.0.1", "localhost")
    with pytest.raises(UserError, match=r"redirects to another address.*redirects to http://localhost:") as error:
        run_here()
    assert "\n" not in str(error.value) and not endpoint.asked
    endpoint.redirect = endpoint.url
    run_here()
    assert len(answers()) == 8


@pytest.mark.parametrize(
    "unit",
    [
        "(",
        "[",
        "![",
        "<think>",
        "<think a= ",
        "*",
        "- ",
        "\n",
        '"',
        "“ ",
        "{",
        "<",
        "1.",
        " ",
        "$",
        "!",
        "☀-",
        "A. ",
    ],
)
def test_an_answer_of_one_mark_is_read_in_linear_time(unit: str) -> None:
    """In quadratic time this would take minutes."""
    for before in ("", "The quick brown fox jumps over the lazy dog and goes on\n", "Required: a\n: x"):
        answer = before + (unit * 2**16)[: 2**16] + "x"
        clean(answer, "sentences", "length")
        clean(answer, "list")
        scrub(answer, KEY)
        clean_attributes([answer])
        with contextlib.suppress(NoAttributes):
            parse_attributes(answer)


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_log_that_cannot_be_written_ends_asking(
    fault: int, folder: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_project(folder, concurrency=2, max_retries=0)
    synced: list[int] = []

    def sync(descriptor: int) -> None:
        synced.append(descriptor)
        if os.path.realpath(f"/proc/self/fd/{descriptor}").endswith(LOG.name) and len(answers()) > 2:
            raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(UserError, match=re.escape(f"{LOG} cannot be written")) as error:
        run_here()
    assert os.strerror(fault).lower() in str(error.value) and "\n" not in str(error.value)
    assert 3 <= sum(endpoint.asked.values()) <= 4  # at most one more was in flight
    monkeypatch.undo()


def test_a_full_disk_is_found_before_anything_is_asked(folder: Path, endpoint: Endpoint) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    try:
        with pytest.raises(UserError, match=re.escape(f"{LOG} cannot be written: file too large")):
            run_here()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not endpoint.asked and len(log_lines()) == 1
    LOG.unlink()
    LOG.symlink_to("/dev/full")
    with pytest.raises(UserError, match="is not a file"):
        run_here()
    assert not endpoint.asked


def test_a_hostile_line_of_a_log_is_skipped(folder: Path) -> None:
    whole: dict[str, Any] = {"request": "a", "model": "m", "answer": "It is red.", "finish_reason": None, "usage": {}}
    usages = [{"prompt_tokens": count} for count in (-1, math.nan, math.inf, 1e300, 10**8, "7", True, [7], 10**400)]
    lines = [json.dumps(whole | {"request": str(place), "usage": usage}) for place, usage in enumerate(usages)]
    bad: list[Any] = [5, None, ["a"], {"a": "b"}, "\ud800", math.inf]
    for key in whole.keys() - {"usage", "finish_reason"}:
        lines += [json.dumps(whole | {key: value}) for value in bad]
    lines += [json.dumps({"wrote": value}) for value in bad]
    lines += [json.dumps({"batch": "b", "model": "m", "requests": value}) for value in (5, "abc", [[1]], bad)]
    lines += [json.dumps({"batch": value, "ended": value}) for value in bad]
    lines += ["[" * 100_000, '{"a":' * 100_000, "1" * 10_000, '"wrote"', '["wrote"]', "1e999", "x" * 2**20, '"\xff']
    LOG.parent.mkdir(parents=True)
    LOG.write_text("\n".join([*lines, json.dumps(whole)]) + "\n", encoding="latin-1")
    records = read_log(LOG)
    assert set(records.answers) == {"a", *map(str, range(len(usages)))} and not records.batches and not records.wrote
    assert records.unreadable == len(lines) - len(usages)
    assert records.tokens["m"] == Tokens(replies=len(usages) + 1, unknown=len(usages) + 1)


def test_an_error_of_writing_names_the_file() -> None:
    with pytest.raises(OSError, match="No space left") as error, naming(Path("model")):
        raise RuntimeError("I/O error: No space left on device (os error 28)")  # as safetensors says it
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, "model") and errno.EFBIG in OF_THE_MACHINE
    with pytest.raises(OSError, match="No space left") as error, naming(Path("image")), open("/dev/full", "w") as file:
        file.write("x")
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, "image")
