"""Two runs of one stage at once: the second says in one line who is running, and changes nothing."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import pytest
from conftest import Call, Project
from describe_project import JSON, NAMES, command, make_project, run_here
from openai_server import Endpoint
from test_interrupts import start, wait_for

from stages.common.files import replacing

LOCK = Path("data/.crop,toy.lock")


@pytest.fixture
def toy(project: Project, monkeypatch: pytest.MonkeyPatch, call: Call) -> Project:
    monkeypatch.chdir(project.folder)
    assert call("ingest", "--dataset", "toy").code == 0
    return project


def test_the_second_run_says_who_is_running(toy: Project, call: Call) -> None:
    with LOCK.open("w+") as other:
        other.write("process 12 on a-host since 2026-01-02 03:04:05 +0000\n")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        refused = call("crop", "--dataset", "toy")
        assert (refused.code, refused.out) == (1, "")
        assert refused.err == (
            "error: another run of crop (toy) is under way: process 12 on a-host since 2026-01-02 03:04:05 +0000; wait "
            "for it to end, or stop it\n"
        )
        assert call("refine", "--dataset", "toy", "--model", "tiny").code == 0, "other stages run"
    assert call("crop", "--dataset", "toy").code == 0, "the lock of a run that is no more holds nobody up"
    assert not any(Path("data").glob(".*"))


def test_of_two_runs_at_once_one_goes_through(toy: Project, call: Call) -> None:
    toy.edit(lambda params: params["crop"].update(candidates=3_000, max_views=10))
    first = start(toy.folder, "stages.crop", "--dataset", "toy")
    wait_for(first, lambda: any(Path("data/toy").glob(".boxes*.tmp")))
    first.send_signal(signal.SIGSTOP)  # for as long as the second needs to start
    second = start(toy.folder, "stages.crop", "--dataset", "toy")
    _, err = second.communicate(timeout=60)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 1
    assert err.startswith(f"error: another run of crop (toy) is under way: process {first.pid} on ")
    assert err.count("\n") == 1
    assert first.communicate(timeout=60) and first.returncode == 0
    together = Path("data/toy/boxes.parquet").read_bytes()
    assert call("crop", "--dataset", "toy").code == 0
    assert Path("data/toy/boxes.parquet").read_bytes() == together


def test_answers_are_paid_for_once(tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, NAMES)
    endpoint.delay = 30.0
    first = command(tmp_path)
    wait_for(first, lambda: endpoint.running == 3)
    second = command(tmp_path)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 1 and "another run of describe (demo, parts) is under way: process" in err
    first.kill()
    first.communicate(timeout=60)
    asked, endpoint.delay = endpoint.asked.copy(), 0.0
    assert sum(asked.values()) == 3
    run_here()
    assert JSON.exists()


def test_temporary_files_of_other_runs_are_left_to_them(tmp_path: Path) -> None:
    gone = os.fork()
    if gone == 0:
        os._exit(0)
    os.waitpid(gone, 0)
    dead, alive, old = (tmp_path / f".table.{name}tmp" for name in (f"{gone}.", f"{os.getppid()}.", ""))
    for path in (dead, alive, old):
        path.write_text("half")
    with replacing(tmp_path / "table") as temporary:
        temporary.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [alive.name, "table"]
