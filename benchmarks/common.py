"""What every benchmark shares: timing, peak memory, the machine's description, the table and `results.json`."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from stages.common.tables import write_json

RESULTS = Path("benchmarks/results.json")
PACKAGES = ("torch", "torchvision", "open_clip_torch", "pyarrow", "polars", "numpy", "pillow")


def machine() -> dict[str, Any]:
    """The processor, its cores, the memory, and the GPU where there is one."""
    info: dict[str, Any] = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                info["cpu"] = line.split(":", 1)[1].strip()
                break
    info["bfloat16"] = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    info["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    if torch.cuda.is_available():
        info["gpu"] = torch.cuda.get_device_name()
    return info


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def side_by_side(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each work, measured in turns, so that a slow spell of the machine hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(seconds(work))
    return times


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median over turns of how many times faster `fast` is."""
    return statistics.median(s / f for s, f in zip(slow, fast, strict=True))


def run_measured(arguments: Sequence[str], cwd: Path) -> tuple[float, float]:
    """Run a command of its own and return its wall-clock seconds and its peak resident memory in MiB.

    Raises:
        SystemExit: the command failed; its output has been printed.
    """
    start = time.perf_counter()
    process = subprocess.Popen(arguments, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{output}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def print_table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A Markdown table, as `benchmarks/README.md` shows it."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print(f"\n{title}\n\n" + "\n".join(lines), flush=True)


def record(benchmark: str, headline: dict[str, float], details: Any) -> None:
    """Merge figures into `results.json`: the headline ones at the top level, the details under the benchmark's name.

    Each benchmark's part says when, where and with which versions it was measured.
    """
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results.update(headline)
    results.setdefault("benchmarks", {})[benchmark] = {
        "date": datetime.date.today().isoformat(),
        "command": f"python -m benchmarks.{benchmark}",
        "machine": machine(),
        "versions": versions(),
        "details": details,
    }
    write_json(RESULTS, results)
    print("\n" + ", ".join(f"{name} {value:g}" for name, value in headline.items()), flush=True)
