"""SIGINT and SIGTERM: one line, exit code 130 or 143, never a traceback, and no answer that was paid for is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Project
from describe_project import JSON, LOG, command, make_project, run_here
from openai_server import Endpoint

from stages.common.interrupts import LINE
from stages.common.responses import read_log

NAMES = [f"bird {index}" for index in range(8)]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    while not reached():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


def loaded(process: subprocess.Popen[str], library: str) -> bool:
    return library in Path(f"/proc/{process.pid}/maps").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("line", "library", "number"),
    [
        ("score --dataset x --model y", "_multiarray_umath", signal.SIGINT),
        ("finer.align --dataset x", "libtorch_cpu", signal.SIGTERM),
        ("finer.tune", "libtorch_cpu", signal.SIGINT),
        ("report.curves --param x", "_pydantic_core", signal.SIGTERM),
    ],
)
def test_while_importing(line: str, library: str, number: signal.Signals, tmp_path: Path) -> None:
    stage, *arguments = line.split()
    process = start(tmp_path, f"stages.{stage}", *arguments)
    wait_for(process, lambda: loaded(process, library))
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (CODES[number], "", f"{LINE}\n")


@pytest.mark.parametrize("number", CODES)
def test_answers_in_flight_arrive_and_are_logged(
    number: signal.Signals, tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that failed is not sent again. `timeout` and terminals may send the signal twice within a moment."""
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, NAMES)
    endpoint.delay = 0.7
    endpoint.fault = lambda prompt, before: "500" if prompt == "Describe bird 1" and not before else None
    process = command(tmp_path)
    wait_for(process, lambda: endpoint.running == 3)
    process.send_signal(number)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == CODES[number]
    assert err.startswith("interrupted: no more is asked") and err.count("\n") == 1
    assert sum(endpoint.asked.values()) == 3 and len(read_log(LOG).answers) == sum(endpoint.paid.values()) == 2
    endpoint.delay = 0.0
    run_here()
    assert JSON.exists() and set(endpoint.paid.values()) == {1}


@pytest.mark.parametrize("ended_by", ["a second signal", "the time-out"])
def test_the_wait_is_bounded(
    ended_by: str, tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, NAMES, timeout=0.8 if ended_by == "the time-out" else 30.0, max_retries=9)
    endpoint.delay = 60.0
    process = command(tmp_path)
    wait_for(process, lambda: endpoint.running == 3)
    process.send_signal(signal.SIGINT)
    if ended_by == "a second signal":
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == (143 if ended_by == "a second signal" else 130)
    assert err.startswith("interrupted: ") and err.count("\n") == 1


@pytest.mark.parametrize(("moment", "number"), [("submitting", signal.SIGTERM), ("waiting", signal.SIGINT)])
def test_in_batch_mode(
    moment: str, number: signal.Signals, tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, NAMES, mode="batch", batch_poll=30.0)
    endpoint.batches.looks = 99

    def interrupt(method: str, path: str, before: int) -> None:
        submitted = (method, path.rpartition("/")[2]) == ("POST", "batches")
        if submitted if moment == "submitting" else "/batches/batch_" in path:
            process.send_signal(number)
            time.sleep(0.3)

    process = command(tmp_path)
    endpoint.batch_fault = interrupt
    _, err = process.communicate(timeout=30)
    assert process.returncode == CODES[number] and err.startswith("interrupted") and err.count("\n") == 1
    assert len(endpoint.batches.batches) == len(read_log(LOG).open_batches()) == 1


def test_while_a_stage_works(project: Project) -> None:
    """Files and processes are cleaned up: no temporary file stays."""
    project.stage("ingest", "--dataset", "toy")
    project.edit(lambda params: params["crop"].update(candidates=30_000, max_views=10))
    process = start(project.folder, "stages.crop", "--dataset", "toy")
    data = project.folder / "data/toy"
    wait_for(process, lambda: any(data.glob(".boxes*.tmp")))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (143, f"{LINE}\n")
    assert not any(data.glob(".*"))
