"""Batch mode: a batch is submitted once, whatever is killed or lost, and everything that comes of it is kept."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from describe_project import (
    JSON,
    LOG,
    NAMES,
    answers,
    command,
    log_lines,
    make_project,
    run_here,
    run_stage,
    write_prompts,
)
from openai_server import KEY, Endpoint

from stages.common.errors import UserError
from stages.common.responses import LogWriter, read_log
from stages.describe import batch, batch_files
from stages.describe.prompts import ClassName, PromptSource, build_requests

FAST: dict[str, Any] = {"mode": "batch", "batch_poll": 0.02}
SUBMIT = "POST /v1/batches"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_project(tmp_path, **FAST)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(batch, "LIST_LAG", 0.5)
    monkeypatch.setattr(batch, "PAUSES", (0.05, 0.1))
    return tmp_path


def test_batch_gives_what_asking_directly_gives(
    folder: Path, endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run_stage(folder)
    assert (code, err) == (0, "")  # no progress bar where there is no terminal
    assert "batch batch_0 of 8 requests, looked at every 0.02 s" in out
    assert "from 8 answers, 8 of them asked for now; dropped: none; spent now 56 + 40 tokens" in out
    assert set(endpoint.paid.values()) == {1}
    assert list(endpoint.batches.batches) == ["batch_0"]
    written = JSON.read_bytes()
    assert log_lines()[-2]["ended"] == "completed"

    run_here()
    JSON.unlink()
    run_here()
    assert len(endpoint.batches.batches) == 1
    assert JSON.read_bytes() == written

    other = tmp_path_factory.mktemp("direct")
    make_project(other)
    monkeypatch.chdir(other)
    run_here()
    assert JSON.read_bytes() == written


def test_rerun_submits_only_what_is_missing(folder: Path, endpoint: Endpoint) -> None:
    faults = {NAMES[0]: "500", NAMES[1]: "filtered", NAMES[2]: "dropped", NAMES[3]: "azure filter"}
    endpoint.fault = lambda prompt, before: faults[prompt.removeprefix("Describe ")] if "Desc" in prompt else None
    endpoint.batches.torn = f"ears has {NAMES[0]}"
    with pytest.raises(UserError) as error:
        run_here()
    for part in ("5 of 8 answers", "2 x content filter", "1 x HTTP 500", "2 x not among the batch's results", "3 rec"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert len(answers()) == 3
    assert sum(line.get("unusable") == "content filter" for line in log_lines()) == 1

    endpoint.fault = lambda prompt, before: None
    endpoint.batches.torn = None
    run_here()
    first, second = endpoint.batches.batches.values()
    assert (first["request_counts"]["total"], second["request_counts"]["total"]) == (8, 5)
    assert len({line["request"] for line in answers()}) == len(answers()) == 8
    assert list(json.loads(JSON.read_text())) == NAMES


@pytest.mark.parametrize("end", ["failed", "expired", "cancelled"])
def test_ended_early_keeps_what_came(
    end: str, folder: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.batches.end = end
    endpoint.fault = lambda prompt, before: "dropped" if "ears" in prompt and before == 0 else None
    reason = "8 x batch failed .*line 1 is wrong" if end == "failed" else f"4 x batch_{end} .*too late"
    with pytest.raises(UserError, match=reason):
        run_here()
    assert f"missing, batch{' ' if end == 'failed' else '_'}{end}: '{NAMES[0]}'" in capsys.readouterr().out
    assert len(answers()) == (0 if end == "failed" else 4)
    endpoint.batches.end = "completed"
    endpoint.fault = lambda prompt, before: None
    run_here()
    assert [b["request_counts"]["total"] for b in endpoint.batches.batches.values()] == [8, 8 if end == "failed" else 4]
    assert set(endpoint.paid.values()) == {1}


@pytest.mark.parametrize("moment", ["upload", "submitted", "waiting", "merging"])
def test_killed_at_any_moment_submits_once(moment: str, folder: Path, endpoint: Endpoint) -> None:
    killed: list[int] = []

    def kill(method: str, path: str, before: int) -> None:
        """Kill the stage when it asks, or before it gets its answer."""
        at = {"upload": "/files", "submitted": "/batches", "waiting": "/batches/batch_0", "merging": "/content"}[moment]
        mine = path.endswith(at) and (method == "GET") == (moment in ("waiting", "merging"))
        if mine and not killed:
            process.send_signal(signal.SIGKILL)
            killed.append(process.wait())

    process = command(folder)
    endpoint.batch_fault = kill
    process.communicate(timeout=60)
    assert killed == [-signal.SIGKILL]
    assert len(endpoint.batches.batches) == (moment != "upload")
    assert bool(read_log(folder / LOG).open_batches()) == (moment in ("waiting", "merging"))
    endpoint.batch_fault = lambda method, path, before: None
    run_here()
    assert len(endpoint.batches.batches) == 1
    assert set(endpoint.paid.values()) == {1}
    assert len(answers()) == 8


def test_merge_that_was_killed_halfway_is_repeated(folder: Path, endpoint: Endpoint) -> None:
    endpoint.fault = lambda prompt, before: "filtered" if "ears has Ab" in prompt and before == 0 else None
    with pytest.raises(UserError):
        run_here()
    lines = LOG.read_bytes().splitlines(keepends=True)
    ended = next(i for i, line in enumerate(lines) if b'"ended"' in line)
    for keep in (ended - 1, ended - 4):
        LOG.write_bytes(b"".join(lines[:keep]) + b'{"request": "torn')
        with pytest.raises(UserError, match="1 of "):
            run_here()
        assert len(answers()) == 7
        assert read_log(LOG).tokens["a-model"].replies == 8  # one of them is no answer
    assert len(endpoint.batches.batches) == 1


@pytest.mark.parametrize("mode", ["batch", "direct"])
def test_kill_before_the_id_is_logged_pays_once_though_the_list_lags(
    mode: str, folder: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.batches.lag, endpoint.batches.page = 3, 1
    with monkeypatch.context() as killed:

        def kill(*_: object) -> None:
            raise KeyboardInterrupt

        killed.setattr(LogWriter, "add_batch", kill)
        with pytest.raises(KeyboardInterrupt):
            run_here()
    (intent,) = read_log(LOG).intents
    submitted = endpoint.batches.batches["batch_0"]
    assert submitted["metadata"]["intent"] == intent and not read_log(LOG).batches
    for name in ("batch_1", "batch_2"):  # of others, on the first pages
        endpoint.batches.batches[name] = submitted | {"id": name, "metadata": None, "input_file_id": "x"}
        endpoint.batches.made_at[name] = -9
    make_project(folder, **FAST | {"mode": mode})
    run_here()
    assert capsys.readouterr().out.count("so that none is paid for twice") == 1
    assert endpoint.asked[SUBMIT] == 1 and set(endpoint.paid.values()) == {1}
    assert not read_log(LOG).intents and len(answers()) == 8


def test_intent_that_was_not_submitted_is_waited_for_once(
    folder: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.batch_fault = lambda method, path, before: "502" if f"{method} {path}" == SUBMIT else None
    with pytest.raises(UserError, match=r"HTTP 502.*may have been submitted: [0-9a-f]{32}; a rerun"):
        run_here()
    endpoint.batch_fault = lambda method, path, before: "401" if f"{method} {path}" == SUBMIT else None
    for waits in (1, 0):  # a refusal is certain
        capsys.readouterr()
        with pytest.raises(UserError, match="refuses the key"):
            run_here()
        assert capsys.readouterr().out.count("so that none is paid for twice") == waits
    endpoint.batch_fault = lambda method, path, before: None
    run_here()
    assert list(endpoint.batches.batches) == ["batch_0"] and len(answers()) == 8


def test_list_that_never_ends_is_read_once(folder: Path, endpoint: Endpoint) -> None:
    page = {"object": "list", "has_more": True, "data": [{"id": "batch_x", "status": "completed", "created_at": 2e9}]}
    endpoint.raw = {"again": json.dumps(page).encode()}
    endpoint.batch_fault = lambda method, path, before: "again" if path.startswith("/v1/batches?") else None
    run_here()
    assert endpoint.asked["GET /v1/batches"] == 2


@pytest.mark.parametrize("fault", ["lost", "half"])
def test_submission_whose_answer_was_lost_is_found(fault: str, folder: Path, endpoint: Endpoint) -> None:
    def lose(method: str, path: str, before: int) -> str | None:
        return fault if f"{method} {path}" == SUBMIT and before == 0 else None

    endpoint.batch_fault = lose
    run_here()
    assert endpoint.asked[SUBMIT] == 1
    assert len(endpoint.batches.batches) == 1
    assert set(endpoint.paid.values()) == {1}


@pytest.mark.parametrize("fault", ["429", "502", "reset"])
def test_passing_faults_cost_nothing(fault: str, folder: Path, endpoint: Endpoint) -> None:
    endpoint.batch_fault = lambda method, path, before: fault if before == 0 else None
    run_here()
    assert len(endpoint.batches.batches) == 1
    assert set(endpoint.paid.values()) == {1}


@pytest.mark.parametrize("path", ["/batches?limit=100", "/files", "/batches/batch_0", "/content"])
def test_half_answers_lose_nothing(path: str, folder: Path, endpoint: Endpoint) -> None:
    endpoint.batch_fault = lambda method, at, before: "half" if at.endswith(path) and before == 0 else None
    if path in ("/batches/batch_0", "/content"):
        run_here()  # looks again
    else:
        with pytest.raises(UserError, match="not whole"):
            run_here()
        run_here()
    assert len({line["request"] for line in answers()}) == 8
    assert len(endpoint.batches.batches) == 1
    assert set(endpoint.paid.values()) == {1}


@pytest.mark.parametrize("raw", ["", "null", '{"data": []}', None])
def test_results_that_stay_short_are_not_asked_for_again(raw: str | None, folder: Path, endpoint: Endpoint) -> None:
    """Without `raw`, half of the file arrives."""
    endpoint.raw = {"other": (raw or "").encode()}
    kind = "half" if raw is None else "other"
    endpoint.batch_fault = lambda method, at, before: kind if at.endswith("/content") else None
    for _ in range(2):
        with pytest.raises(UserError, match=r"results of batch_0 are not whole.* a rerun .* goes on") as error:
            run_here()
    before, (line,) = LOG.read_bytes(), re.findall(r"add the line ({.*}) to ", str(error.value))
    endpoint.batch_fault = lambda method, at, before: None
    run_here()
    assert len({line["request"] for line in answers()}) == 8
    assert set(endpoint.paid.values()) == {1}

    # What the message advises for a file that never becomes whole.
    LOG.write_bytes(before + line.encode() + b"\n")
    JSON.unlink()
    run_here()
    assert len({line["request"] for line in answers()}) == 8
    assert len(endpoint.batches.batches) == 2


def test_hopeless_faults_are_told_in_one_line(folder: Path, endpoint: Endpoint) -> None:
    faults = (("404", "describe.mode to direct"), ("401", "refuses the key"), ("quota", "quota is used up"))
    for fault, remedy in faults:
        endpoint.batch_fault = lambda method, path, before, fault=fault: fault  # type: ignore[misc]
        with pytest.raises(UserError, match=remedy) as error:
            run_here()
        assert KEY[:9] not in str(error.value)
        assert "\n" not in str(error.value)
    endpoint.batch_fault = lambda method, path, before: "404" if path.endswith("batch_0") else None
    with pytest.raises(UserError, match=r"under way: batch_0; a rerun .* delete its line"):
        run_here()
    endpoint.batch_fault = lambda method, path, before: None
    run_here()
    assert len(endpoint.batches.batches) == 1
    written = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert KEY.encode() not in written


def test_the_words_of_a_server_reach_the_user(folder: Path, endpoint: Endpoint) -> None:
    make_project(folder, **FAST, max_retries=1)
    endpoint.raw = {
        "html": b"<p>Gateway login, {key}</p>",
        "error": b'{"error": {"message": "overloaded", "code": 503}}',
    }
    for fault, said in (("html", r"HTTP 502: Gateway login, \*\*\*"), ("error", "HTTP 503: overloaded")):
        endpoint.batch_fault = lambda method, path, before, fault=fault: fault  # type: ignore[misc]
        with pytest.raises(UserError, match=rf"asking in batches stopped \({said}\)"):
            run_here()
    endpoint.batch_fault = lambda method, path, before: "html" if before == 0 else None  # which the client retries
    run_here()
    assert len(endpoint.batches.batches) == 1 and set(endpoint.paid.values()) == {1}


def test_a_batch_that_the_endpoint_has_lost_is_given_up_as_the_message_says(folder: Path, endpoint: Endpoint) -> None:
    endpoint.batch_fault = lambda method, path, before: "401" if "batch_" in path else None
    with pytest.raises(UserError, match="batch_0"):
        run_here()
    endpoint.batch_fault = lambda method, path, before: None
    endpoint.batches.batches.clear()
    with pytest.raises(UserError, match=r"to give one up, delete its line in \S+parts\.jsonl"):
        run_here()
    LOG.write_text("".join(line for line in LOG.read_text().splitlines(keepends=True) if '"batch_0"' not in line))
    run_here()
    assert len(answers()) == 8


def test_open_batch_is_collected_in_direct_mode_and_after_prompts_changed(folder: Path, endpoint: Endpoint) -> None:
    endpoint.batch_fault = lambda method, path, before: "401" if "batch_" in path else None
    with pytest.raises(UserError, match="batch_0"):
        run_here()
    endpoint.batch_fault = lambda method, path, before: None
    make_project(folder, mode="direct", batch_poll=0.02)
    write_prompts(folder, "Describe {name}", "Which tail has {name}")
    endpoint.forget()
    run_here()
    # The old batch ran to its end and its answers are kept; directly asked for were the new ones.
    assert set(endpoint.paid.values()) == {1}
    assert len(endpoint.bodies) == 4
    assert len(answers()) == 12
    write_prompts(folder, "Describe {name}", "Which ears has {name}")
    endpoint.forget()
    run_here()
    assert not endpoint.asked


def test_completions_in_parts(folder: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_files, "MOST_REQUESTS", 5)
    write_prompts(folder, "Q: {name}\nA:", api="completions", samples=3)
    endpoint.answer = lambda prompt: "It is red."
    run_here()
    batches = endpoint.batches.batches.values()
    assert [b["request_counts"]["total"] for b in batches] == [5, 5, 2]
    assert {b["endpoint"] for b in batches} == {"/v1/completions"}
    assert len({b["metadata"]["bifta"] for b in batches}) == 3
    assert set(endpoint.paid.values()) == {3}
    assert len(json.loads(JSON.read_text())["Übermops"]) == 3


def test_parts_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = build_requests(PromptSource(templates=["{name}"], samples=7), [ClassName("wren")], "m", "demo")
    monkeypatch.setattr(batch_files, "MOST_BYTES", 3 * len(batch_files.line_of(requests[0])))
    assert [len(part) for part in batch_files.split(requests)] == [3, 3, 1]


def test_interval_between_looks(folder: Path, endpoint: Endpoint) -> None:
    make_project(folder, mode="batch", batch_poll=0.3)
    endpoint.batches.looks = 2
    start = time.monotonic()
    run_here()
    assert endpoint.batches.looked["batch_0"] == 3
    assert time.monotonic() - start >= 0.6
