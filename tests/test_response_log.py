"""The response log: whatever tears it, no whole line of it is lost."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from describe_project import (
    JSON,
    LOG,
    answers,
    make_project,
    run_here,
    write_prompts,
)
from openai_server import Endpoint

from stages.common.errors import UserError
from stages.common.responses import read_log, sha256


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_torn_last_line_is_cut_and_asked_again(
    project: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    run_here()
    expected, lines = JSON.read_bytes(), LOG.read_bytes().splitlines(keepends=True)
    JSON.unlink()
    endpoint.forget()
    LOG.write_bytes(b"".join(lines[:8]) + lines[8][:-20])
    run_here()
    assert sum(endpoint.asked.values()) == 1
    assert "torn line" in capsys.readouterr().err
    assert JSON.read_bytes() == expected
    assert len(answers()) == 8

    # A whole record without its line feed was paid for.
    LOG.write_bytes(b"".join(lines[:8]) + lines[8].rstrip(b"\n"))
    JSON.unlink()
    endpoint.forget()
    run_here()
    assert not endpoint.asked
    assert JSON.read_bytes() == expected
    assert len(answers()) == 8


def test_log_cut_anywhere_keeps_every_whole_line(project: Path, endpoint: Endpoint) -> None:
    run_here()
    content = LOG.read_bytes()
    cut = project / "cut.jsonl"
    for length in range(0, len(content), 23):
        cut.write_bytes(content[:length])
        assert len(read_log(cut).answers) >= min(8, content[:length].count(b"\n") - 1)  # the first line is no answer
        assert read_log(cut).whole_bytes <= length


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "read-only"])
def test_log_linked_into_a_cache_is_left_alone(kind: str, project: Path, endpoint: Endpoint) -> None:
    run_here()
    cache = project / "cache"
    LOG.rename(cache)
    cache.chmod(0o444)
    if kind == "symlink":
        LOG.symlink_to(cache)
    elif kind == "hardlink":
        LOG.hardlink_to(cache)
    else:
        LOG.write_bytes(cache.read_bytes())
        LOG.chmod(0o444)
    before = cache.read_bytes()
    write_prompts(project, "Describe {name}", "Which tail has {name}")
    run_here()
    assert cache.read_bytes() == before
    assert LOG.read_bytes().startswith(before)
    assert len(answers()) == 12
    assert not LOG.is_symlink()


def test_log_held_by_another_run_or_gone_is_refused(project: Path, endpoint: Endpoint) -> None:
    LOG.parent.mkdir(parents=True)
    with LOG.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another run"):
            run_here()
    LOG.unlink()
    LOG.symlink_to("nowhere")
    with pytest.raises(UserError, match=r"dvc pull.* or delete the link"):
        run_here()
    assert not endpoint.asked
    LOG.unlink()
    run_here()


def test_the_log_says_which_model_wrote_a_file(project: Path, endpoint: Endpoint) -> None:
    run_here()
    content = sha256(JSON.read_bytes())
    assert read_log(LOG).written_by == {content: "a-model"}
    # As earlier versions wrote it: the model of all answers before, if they are of one.
    lines = LOG.read_bytes().replace(b', "model": "a-model", "time"', b', "time"')
    assert lines.count(b'"a-model"') == LOG.read_bytes().count(b'"a-model"') - 1
    LOG.write_bytes(lines)
    assert read_log(LOG).written_by == {content: "a-model"}
    LOG.write_bytes(lines.replace(b'"a-model"', b'"b-model"', 1))
    assert read_log(LOG).written_by == {} and read_log(LOG).wrote == {content}
