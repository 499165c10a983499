"""FINER at servers as they are: what they refuse, how they count, what stands around their answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from conftest import Call, Project
from finer_project import make_labelled
from openai_server import KEY, Body, Endpoint
from test_finer_ask import ANSWERS, LOG, LVLM, ask_little
from test_thoughts import MARKS

from stages.finer.ask.picture import Picture
from stages.finer.ask.questions import Lvlm, Turn

SECOND = "Given these attributes: "


@pytest.fixture
def asked(project: Project, monkeypatch: pytest.MonkeyPatch, call: Call) -> Project:
    """Three classes, one image each, with and without an image, plain and ATTRSEEK."""
    make_labelled(project)
    project.edit(ask_little)
    project.edit(lambda params: params["finer"]["ask"].update(granularities=["fine"], inputs=["image", "text"]))
    monkeypatch.chdir(project.folder)
    for stage in ("ingest", "finer.concepts", "finer.unify"):
        assert call(stage, "--dataset", "toy").code == 0
    return project


def rows(**of: str) -> pl.DataFrame:
    return pl.read_parquet(ANSWERS).filter(True, **of)


def reply(content: object, finish_reason: str = "stop") -> bytes:
    choice = {"finish_reason": finish_reason, "message": {"role": "assistant", "content": content}}
    return json.dumps({"choices": [choice]}).encode()


def sends(endpoint: Endpoint, content: bytes, wanted: Callable[[str], bool] = lambda prompt: True) -> None:
    """Have the endpoint reply this to the prompts that are wanted."""
    endpoint.raw = {"own": content}
    endpoint.fault = lambda prompt, before: "own" if wanted(prompt) else None


def test_requests_keep_their_digests_so_that_nothing_is_paid_twice() -> None:
    """The digests are those of answers that users have in their logs, from when text was sent in parts."""
    lvlm = Lvlm("vlm", "a-model", None, {"temperature": 0.0, "seed": 0})
    asks, picture = Turn("user", "What is it?"), Picture(Path("a.png"), "0123456789abcdef")
    seek = [Turn("user", "Which?", picture), Turn("assistant", "blue crown"), asks]
    requests = [lvlm.request("x", turns) for turns in ([asks], [Turn("user", "What is it?", picture)], seek)]
    assert [request.digest for request in requests] == ["c7a42a762705547c", "001e5e16ce5034e1", "43da0110c9125f18"]
    assert requests[0].body["messages"] == [{"role": "user", "content": "What is it?"}]


def test_text_alone_is_sent_as_a_string(asked: Project, call: Call, endpoint: Endpoint) -> None:
    assert call("finer.ask", "--lvlm", LVLM).code == 0
    for body in endpoint.bodies:
        for message in body["messages"]:
            content: list[Body] | str = message["content"]
            assert isinstance(content, str) or any(part["type"] == "image_url" for part in content)


def test_a_second_turn_that_is_refused_says_so_and_keeps_the_first(
    asked: Project, call: Call, endpoint: Endpoint
) -> None:
    endpoint.fault = lambda prompt, before: "400" if prompt.startswith(SECOND) else None
    done = call("finer.ask", "--lvlm", LVLM)
    assert done.code == 0 and done.err.count("\n") == 1
    assert "'vlm' refuses the second turn of ATTRSEEK (3 x HTTP 400 (image '" in done.err
    assert "missing: 3 HTTP 400 in the second turn: unsupported parameter" in done.out
    seek, plain = rows(prompting="attrseek"), rows(prompting="plain")
    assert seek["attributes"].null_count() == 0 and seek["answer"].null_count() == len(seek) == 3
    assert plain["answer"].null_count() == 0
    # What the line advises: the same command asks for these alone.
    endpoint.forget()
    endpoint.fault = lambda prompt, before: None
    assert call(*done.err.split("`python -m stages.")[1].split("`")[0].split()).code == 0
    assert len(endpoint.bodies) == 3 and rows(prompting="attrseek")["answer"].null_count() == 0


def test_an_endpoint_that_counts_no_images_is_asked_where_the_user_says_that_it_sees(
    asked: Project, call: Call, endpoint: Endpoint
) -> None:
    endpoint.image_tokens = 0
    refused = call("finer.ask", "--lvlm", LVLM)
    assert refused.code == 1 and "set `vision: true` in finer.endpoints.vlm" in refused.err
    asked.edit(lambda params: params["finer"]["endpoints"][LVLM].update(vision=True))
    done = call("finer.ask", "--lvlm", LVLM)
    assert (done.code, done.err) == (0, "") and rows()["answer"].null_count() == 0


def test_an_endpoint_that_counts_zero_tokens_is_not_called_blind(
    asked: Project, call: Call, endpoint: Endpoint
) -> None:
    usage = {"prompt_tokens": 0, "completion_tokens": 0}
    sends(endpoint, json.dumps(json.loads(reply("Answer: Cat")) | {"usage": usage}).encode())
    done = call("finer.ask", "--lvlm", LVLM)
    assert done.code == 0 and "counts no tokens: whether it sees the images cannot be checked" in done.out


@pytest.mark.parametrize(
    "content",
    [
        *(f"{opening}Answer: Dog{closing}Answer: Cat" for opening, closing in MARKS[:15:4]),
        "<think>Answer: Dog</think><answer><|begin_of_box|>Cat<|end_of_box|></answer>",
        [{"type": "thinking", "thinking": "Answer: Dog"}, {"type": "text", "text": "Answer: Cat"}],
    ],
)
def test_what_is_scored_is_the_answer_alone(asked: Project, call: Call, endpoint: Endpoint, content: object) -> None:
    sends(endpoint, reply(content))
    for stage in (("finer.ask", "--lvlm", LVLM), ("finer.score",)):
        assert call(*stage).code == 0
    assert set(pl.read_parquet("data/finer/scores.parquet")["extracted"]) == {"Cat"}
    assert {text.removeprefix("Answer: ") for text in rows()["answer"]} == {"Cat"}
    assert not any("Dog" in json.dumps(body) for body in endpoint.bodies)  # nor is it sent back in a second turn


@pytest.mark.parametrize("content", [None, "", [{"type": "thinking", "thinking": "Hm"}]])
def test_an_answer_that_was_cut_before_its_first_word_counts_as_cut(
    asked: Project, call: Call, endpoint: Endpoint, content: object
) -> None:
    sends(endpoint, reply(content, "length"), lambda prompt: prompt.startswith("What is the exact name"))
    done = call("finer.ask", "--lvlm", LVLM)
    assert "missing: none; 3 were cut before their first word" in done.out
    cut = rows(input="image", prompting="plain")
    assert (set(cut["answer"]), set(cut["finish_reason"])) == ({""}, {"length"})


def test_the_server_s_words_reach_the_user_and_its_faults_are_retried(
    asked: Project, call: Call, endpoint: Endpoint
) -> None:
    sends(endpoint, b"<html><p>Gateway login for {key}</p></html>")
    done = call("finer.ask", "--lvlm", LVLM)
    assert done.code == 1 and done.err.count("\n") == 1
    assert "'vlm' answers nothing (" in done.err and "Gateway login for ***" in done.err
    assert KEY not in LOG.read_text()
    endpoint.raw = {"own": b'{"choices": [{"finish_reason": "error", "message": {"content": "Answer: Do"}}]}'}
    endpoint.fault = lambda prompt, before: "own" if before == 0 else None
    assert "missing: none" in call("finer.ask", "--lvlm", LVLM).out
    assert "Answer: Do" not in LOG.read_text()


def test_concepts_that_were_cut_are_asked_for_with_the_limit_that_the_message_names(
    asked: Project, call: Call, endpoint: Endpoint
) -> None:
    Path("descriptions/toy/attributes.json").unlink()
    found = json.dumps({"required": ["red crown"], "likely": []})
    endpoint.raw = {"cut": reply(None, "length"), "whole": reply(found)}
    endpoint.fault = lambda prompt, before: "whole" if endpoint.bodies[-1]["max_tokens"] == 4000 else "cut"
    asked.edit(lambda params: params["describe"].update(concurrency=1))
    done = call("finer.concepts", "--dataset", "toy")
    assert "3 of them were cut at the limit, which `settings: {max_tokens: 4000}` raises" in done.err
    asked.edit(lambda params: params["finer"]["concepts"].update(settings={"max_tokens": 4000}))
    assert call("finer.concepts", "--dataset", "toy").code == 0


def test_concepts_are_asked_for_with_the_settings_that_the_server_takes(
    asked: Project, call: Call, endpoint: Endpoint
) -> None:
    Path("descriptions/toy/attributes.json").unlink()
    endpoint.answer = lambda prompt: "Required:\n- red crown\nLikely:\n- none"
    own = {"max_tokens", "response_format"}
    endpoint.fault = lambda prompt, before: "400" if own & endpoint.bodies[-1].keys() else None
    asked.edit(lambda params: params["describe"].update(concurrency=1))
    done = call("finer.concepts", "--dataset", "toy")
    advice = "`structured: false` asks for no schema, `settings` of {max_tokens: null, max_completion_tokens: 600}"
    assert done.code == 1 and advice in done.err
    settings = {"max_tokens": None, "max_completion_tokens": 600}
    asked.edit(lambda params: params["finer"]["concepts"].update(structured=False, settings=settings))
    assert call("finer.concepts", "--dataset", "toy").code == 0


def test_concepts_read_the_same_replies(asked: Project, call: Call, endpoint: Endpoint) -> None:
    target = Path("descriptions/toy/attributes.json")
    target.unlink()
    found = json.dumps({"required": ["red crown"], "likely": []})
    thinking = {"type": "thinking", "thinking": '{"required": ["x"]}'}
    sends(endpoint, reply([thinking, {"type": "text", "text": f"<|begin_of_box|>{found}<|end_of_box|>"}]))
    assert call("finer.concepts", "--dataset", "toy").code == 0
    assert [entry["attr_binomial"]["required"] for entry in json.loads(target.read_text())] == [["red crown"]] * 3
