"""What real servers reply: where the answer is in it, and what becomes of replies without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from describe_project import JSON, LOG, answers, log_lines, make_project, run_here, run_stage, write_prompts
from openai_server import KEY, Endpoint

from stages.common.endpoint import GIVE_UP_AFTER
from stages.common.errors import UserError
from stages.common.replies import Unusable, read_reply, server_fault, words
from stages.common.responses import Reply, Tokens
from stages.describe.batch_files import Results


def completion(content: Any, finish_reason: Any = "stop", **message: Any) -> bytes:
    choice = {"finish_reason": finish_reason, "message": {"role": "assistant", "content": content, **message}}
    return json.dumps({"choices": [choice]}).encode()


THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "Answer: Dog"}]}
TEXT = {"type": "text", "text": "Answer: Cat"}


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (completion("Answer: Cat"), "Answer: Cat"),
        (completion([THINKING, TEXT]), "Answer: Cat"),
        (completion([{"type": "text", "text": "Answer: "}, {"type": "output_text", "text": "Cat"}]), "Answer: Cat"),
        (completion([{"type": "reasoning", "text": "Answer: Dog"}, "Answer: Cat"]), "Answer: Cat"),
        (completion(TEXT), "Answer: Cat"),
        (completion("Answer: Cat", reasoning_content="Answer: Dog"), "Answer: Cat"),
        (completion("Answer: Cat", refusal=""), "Answer: Cat"),
        (completion("Answer: \ud83d Cat"), "Answer: \ufffd Cat"),
        (b"\xef\xbb\xbf" + completion("Answer: Cat"), "Answer: Cat"),
        (b'{"choices": [{"text": "Answer: Cat"}], "usage": [1]}', "Answer: Cat"),
        (completion("", "stop"), ""),
        # Cut before the first word: in whichever way a server says that nothing came.
        (completion("", "length"), ""),
        (completion(None, "length"), ""),
        (completion(None, "length", reasoning_content="Hm"), ""),
        (completion([THINKING], "length"), ""),
        (completion([], "length"), ""),
        (completion(None, "MAX_TOKENS"), ""),
        (completion([{"type": "text", "text": {"value": "Answer: Cat", "annotations": []}}]), "Answer: Cat"),
    ],
)
def test_the_answer_is_found(content: bytes, answer: str) -> None:
    reply = read_reply(content)
    assert reply.answer == answer
    reply.answer.encode()
    assert server_fault(content) is None


@pytest.mark.parametrize(
    ("content", "reason", "said"),
    [
        (completion(None), "no text", ""),
        (completion([THINKING]), "no text", ""),
        (completion(None, reasoning_content="Answer: Cat"), "no text", ""),
        (completion(None, "tool_calls", tool_calls=[{"id": "1"}]), "no text", ""),
        (completion(None, refusal="I can't."), "refused", ""),
        (completion("", refusal="I can't."), "refused", ""),
        (completion([{"type": "refusal", "refusal": "I can't."}]), "refused", ""),
        (completion("", "content_filter"), "content filter", ""),
        (b'{"choices": []}', "no choices", '{"choices": []}'),
        (b'{"detail": "Not Found"}', "no choices", "Not Found"),
        (b'["x"]', "no completion", '["x"]'),
        (b'{"choices": "x"}', "no completion", "x"),
        (b"", "broken JSON", ""),
        (b'{"choices": [{"mess', "broken JSON", "mess"),
        (b"[" * 100_000, "broken JSON", "[["),
        (b"Internal Server Error", "broken JSON", "Internal Server Error"),
        (b"<html><head><style>a{}</style></head><body>gateway &amp; login</body>", "HTML and no answer", "y & login"),
        (b'data: {"choices": [{"delta": {"content": "Cat"}}]}\n\ndata: [DONE]', "an event stream and no answer", "Cat"),
        (b': ping\n\ndata: {"error": {"message": "busy"}}\n\n', "an event stream and no answer", "busy"),
    ],
)
def test_a_reply_without_an_answer_says_why(content: bytes, reason: str, said: str) -> None:
    with pytest.raises(Unusable) as error:
        read_reply(content)
    assert str(error.value) == reason
    assert said in error.value.detail
    assert server_fault(content) is None


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"error": {"message": "model overloaded", "code": 503}}, 503, "model overloaded"),
        ({"error": {"message": "slow down", "code": "429"}}, 429, "slow down"),
        ({"error": "no model is loaded"}, 502, "no model is loaded"),
        ({"error": {"code": 7, "status": "X"}}, 502, '"status": "X"'),
        ({"object": "error", "message": "max context", "code": 400}, 400, "max context"),
        ({"choices": [{"finish_reason": "error", "message": {"content": ""}}]}, 502, "does not say why"),
        (
            {"choices": [{"finish_reason": "error", "error": {"code": 504, "message": "upstream"}, "text": "The"}]},
            504,
            "upstream",
        ),
        ({"choices": [{"finish_reason": None, "error": {"code": 503, "message": "busy"}, "text": ""}]}, 503, "busy"),
        ({"error": {"code": 429, "message": "slow"}, "choices": [{"message": {"content": None}}]}, 429, "slow"),
        ([{"error": {"code": 400, "message": "no such model"}}], 400, "no such model"),
        ({"choices": [{"finish_reason": "abort", "message": {"content": "The"}}]}, 502, "does not say why"),
    ],
)
def test_a_fault_that_is_sent_with_http_200_has_a_status(body: Any, status: int, message: str) -> None:
    found = server_fault(json.dumps(body).encode())
    assert found is not None and found[0] == status and message in found[1]["message"]
    # The same in a batch's results: nothing that was paid.
    line = {"custom_id": "a", "response": {"status_code": 200, "body": body}}
    results = Results()
    [result] = results.read([json.dumps(line).encode()], KEY, 1)
    assert (results.torn, result.reply, result.usage, result.reason) == (0, None, {}, f"HTTP {status}")
    assert message in result.detail


def test_an_error_beside_an_answer_is_no_fault() -> None:
    body = {"error": None, "choices": [{"finish_reason": "stop", "message": {"content": "Cat"}}]}
    assert server_fault(json.dumps(body).encode()) is None
    assert server_fault(json.dumps(body | {"error": {"code": 500}}).encode()) is None


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS", "model_length"])
def test_a_limit_of_tokens_has_one_name(reason: str) -> None:
    assert read_reply(completion("The cat has", reason)) == Reply("The cat has", "length", {})


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 600.0, "completion_tokens": 5}, Tokens(1, 600, 5, 0)),
        (
            {"prompt_tokens": 600, "completion_tokens": 5, "details": {"x": 1}, "y": None, "z": True},
            Tokens(1, 600, 5, 0),
        ),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Tokens(1, 0, 0, 1)),  # it counts nothing
        ({"prompt_tokens": float("nan"), "completion_tokens": float("inf")}, Tokens(1, 0, 0, 1)),
        (None, Tokens(1, 0, 0, 1)),
        ([600, 5], Tokens(1, 0, 0, 1)),
    ],
)
def test_tokens_are_counted_where_the_server_counts_them(usage: Any, counted: Tokens) -> None:
    content = json.dumps({"choices": [{"message": {"content": "Cat"}}], "usage": usage}).encode()
    assert Tokens.of(read_reply(content).usage) == counted


def test_words_are_those_that_a_person_reads() -> None:
    assert words(b"<p>busy<script>x()</script> now</p>") == "busy  now"
    assert words(b'{"error": {"message": "busy", "code": 1}}') == "busy"
    assert words(b'{"message": {"a": 1}}') == '{"a": 1}'


# The stage


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_project(tmp_path, ["wren"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_fault_with_http_200_is_retried_and_not_paid(project: Path, endpoint: Endpoint) -> None:
    choice = b'{"finish_reason": "error", "message": {"content": "It is"}}'
    endpoint.raw = {"error": b'{"choices": [' + choice + b'], "usage": {"prompt_tokens": 9}}'}
    endpoint.fault = lambda prompt, before: "error" if before == 0 else None
    run_here()
    assert set(endpoint.asked.values()) == {2} and set(endpoint.paid.values()) == {1}
    assert len(answers()) == 2 and not [line for line in log_lines() if "unusable" in line]
    assert "It is" not in JSON.read_text()


def test_the_server_s_words_reach_the_user_in_one_line_without_the_key(project: Path, endpoint: Endpoint) -> None:
    endpoint.raw = {
        "html": b"<html><title>Sign in</title>\n<p>Key {key}\x1b[31m is\nunknown</p>",
        "error": b'{"error": {"message": "overloaded,\\nkey {key}", "code": 503}}',
    }
    endpoint.fault = lambda prompt, before: "html" if "ears" in prompt else "error"
    code, out, err = run_stage(project)
    assert (code, err.count("\n")) == (1, 1)
    assert "1 x HTML and no answer (class 'wren': Sign in Key *** [31m is unknown)" in err
    assert "1 x HTTP 503 (class 'wren': overloaded, key ***)" in err
    assert KEY[:9] not in out + err + LOG.read_text()


def test_an_endpoint_of_web_pages_is_not_asked_on(project: Path, endpoint: Endpoint) -> None:
    make_project(project, [f"bird {index}" for index in range(60)])
    endpoint.raw = {"html": b"<html>gateway login</html>"}
    endpoint.fault = lambda prompt, before: "html"
    with pytest.raises(UserError, match=rf"{GIVE_UP_AFTER} requests in a row failed.*gateway login"):
        run_here()
    assert sum(endpoint.asked.values()) <= GIVE_UP_AFTER + 3


def test_an_answer_in_parts_is_read_and_kept(project: Path, endpoint: Endpoint) -> None:
    endpoint.raw = {"parts": completion([THINKING, {"type": "text", "text": "It is red."}])}
    endpoint.fault = lambda prompt, before: "parts"
    run_here()
    assert json.loads(JSON.read_text()) == {"wren": ["It is red.", "It is red."]}


def test_an_answer_that_was_cut_before_its_first_word_is_counted_as_cut(project: Path, endpoint: Endpoint) -> None:
    endpoint.raw = {"null": completion(None, "length"), "empty": completion("", "length")}
    endpoint.fault = lambda prompt, before: "null" if "ears" in prompt else "empty"
    with pytest.raises(UserError, match=r"no usable description of 'wren' \(dropped: 2 cut\); change .*max_tokens"):
        run_here()
    assert Reply("", "length") in [Reply(line["answer"], line["finish_reason"]) for line in answers()]
    endpoint.fault = lambda prompt, before: None
    write_prompts(project, "Describe {name}", max_tokens=4000)  # as it advises
    run_here()
    assert endpoint.bodies[-1]["max_tokens"] == 4000


def test_a_setting_that_the_server_does_not_take_is_changed_as_the_message_says(
    project: Path, endpoint: Endpoint
) -> None:
    endpoint.fault = lambda prompt, before: "400" if "max_tokens" in endpoint.bodies[-1] else None
    make_project(project, ["wren"], concurrency=1)
    with pytest.raises(UserError, match=r"parts\.yaml says what is sent: `max_tokens: null` .*`extra`"):
        run_here()
    write_prompts(project, "Describe {name}", max_tokens=None, extra={"max_completion_tokens": 200})
    run_here()
    assert endpoint.bodies[-1]["max_completion_tokens"] == 200


def test_the_words_of_a_page_with_another_status_reach_the_user(project: Path, endpoint: Endpoint) -> None:
    make_project(project, ["wren"], max_retries=0)
    endpoint.fault = lambda prompt, before: "413 page"
    with pytest.raises(UserError, match=r"2 x HTTP 413 \(class 'wren': 413 Request Entity Too Large\)"):
        run_here()
