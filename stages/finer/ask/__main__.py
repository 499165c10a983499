"""ask: the benchmark's questions to one LVLM, `data/finer/answers/<lvlm>/<dataset>.parquet`.

An LVLM is an OpenAI-compatible chat endpoint, or a checkpoint that `transformers serve` serves while it is asked. Every
answer is logged as it arrives, keyed by its request, so that an interrupted run continues and nothing is paid for
twice.
"""

from __future__ import annotations

from stages.common.errors import run
from stages.finer.ask.answers import ask_lvlm
from stages.finer.cli import parse_finer_job


def main() -> None:
    for line in ask_lvlm(parse_finer_job("finer.ask", __doc__, "lvlm")):
        print(line, flush=True)


if __name__ == "__main__":
    run(main)
