"""Serves a checkpoint on this machine with `transformers serve`, on loopback, while it is asked."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from stages.common.errors import UserError
from stages.common.made_from import folder_digest
from stages.common.optional import import_optional
from stages.common.workers import die_with_parent

START_SECONDS = 600
"""How long a model may take to load."""

TINY_BYTES = 200_000_000
"""Models with fewer bytes of weights run on one thread, because more would wait for each other longer than compute."""


def checkpoint_hash(folder: Path) -> str:
    """`folder_digest` of a checkpoint.

    Raises:
        UserError: no such folder, or no checkpoint in it.
    """
    if not (folder / "config.json").is_file() or not any(folder.rglob("*.safetensors")):
        raise UserError(
            f"'{folder}' holds no checkpoint (config.json and *.safetensors); correct finer.served in params.yaml, or "
            "make it with `make finer`"
        )
    return folder_digest(folder)


@contextmanager
def serving(folder: Path, log: Path) -> Iterator[str]:
    """Serve a checkpoint inside the context; yields the endpoint's base URL.

    Args:
        log: file for the server's output.

    Raises:
        UserError: `transformers` with its server is not installed, or the server does not start.
    """
    import_optional("transformers", "asking a checkpoint under finer.served")
    import_optional("uvicorn", "asking a checkpoint under finer.served")
    port = _free_port()
    command = [transformers_command(), "serve", str(folder.resolve())]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            env=_environment(folder),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
            process_group=0,  # a terminal's SIGINT is for the stage, which ends the server after its last answer
        )
    try:
        _wait(server, f"http://127.0.0.1:{port}/health", folder, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(10)
        server.kill()
        server.wait()


def transformers_command() -> str:
    """Path of the command `transformers`: beside this Python, or where `pip install --user` puts it.

    Raises:
        UserError: there is none.
    """
    found = shutil.which("transformers", path=str(Path(sys.executable).parent)) or shutil.which("transformers")
    if found is None:
        raise UserError(
            "asking a checkpoint under finer.served needs the command `transformers`; "
            "pip install -r requirements-finer.txt"
        )
    return found


def _environment(folder: Path) -> dict[str, str]:
    """The environment without API keys, which a local server does not need, and with the hub offline."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    kept |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if sum(path.stat().st_size for path in folder.glob("*.safetensors")) < TINY_BYTES:
        kept["OMP_NUM_THREADS"] = "1"
    return kept


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(server: subprocess.Popen[bytes], health: str, folder: Path, log: Path) -> None:
    for _ in range(START_SECONDS * 5):
        if server.poll() is not None:
            lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
            said = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
            raise UserError(
                f"`transformers serve` did not start with '{folder}': {said[:300]}; all it said is in {log}"
            )
        with suppress(URLError, OSError), urlopen(health, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise UserError(f"`transformers serve` was not ready after {START_SECONDS} s with '{folder}'; see {log}")
