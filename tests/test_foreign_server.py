"""The stage against an OpenAI-compatible server that was not written here: MockLLM (`pip install mockllm`)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from describe_project import JSON, NAMES, answers, make_project, run_here, run_stage, write_prompts
from openai_server import KEY

from stages.common.errors import UserError

pytest.importorskip("mockllm")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a server that knows an answer to one question about each class."""
    folder = tmp_path_factory.mktemp("mockllm")
    known = {f"Describe {name}": f"1. The {name} is lean. It has 3.5 cm of fur.\nLet me know!" for name in NAMES}
    responses = {"responses": known, "defaults": {"unknown_response": "I'm sorry, but I don't know that."}}
    (folder / "responses.yml").write_text(yaml.safe_dump(responses | {"settings": {"lag_enabled": False}}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "mockllm.server:app", "--port", str(port), "--log-level", "error"]
    environment = os.environ | {"MOCKLLM_RESPONSES_FILE": str(folder / "responses.yml")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/docs", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert process.poll() is None, "the server did not start"
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the server does not answer")


@pytest.fixture
def folder(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_project(tmp_path, max_retries=0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_BASE_URL", server)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


def test_asks_cleans_counts_and_resumes(folder: Path) -> None:
    code, out, err = run_stage(folder)  # one question is answered, the other refused
    assert (code, err) == (0, "")
    assert "8 descriptions of 4 classes from 8 answers, 8 of them asked for now; dropped: " in out
    assert "4 refusal" in out
    assert json.loads(JSON.read_text())["great pyrenees"] == ["The great pyrenees is lean.", "It has 3.5 cm of fur."]
    assert all(line["usage"]["completion_tokens"] > 0 for line in answers())
    assert "spent now 0 + 0 tokens" not in out

    write_prompts(folder, "Describe {name}", system="Be short.", samples=2)  # what is sent has changed
    run_here()
    assert len(answers()) == 8 + 8
    assert len(json.loads(JSON.read_text())["Abyssinian"]) == 4


def test_endpoints_that_it_lacks_are_told_in_one_line(folder: Path) -> None:
    write_prompts(folder, "Describe {name}", api="completions")
    with pytest.raises(UserError, match=r"does not know the model or the address.*check OPENAI_API_KEY"):
        run_here()
    make_project(folder, mode="batch")
    with pytest.raises(UserError, match=r"may have no Batch API: set describe\.mode to direct") as error:
        run_here()
    assert KEY[:9] not in str(error.value)
    assert not answers()
    make_project(folder, mode="direct")
    run_here()
