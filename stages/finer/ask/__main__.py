"""ask: the benchmark's questions to one LVLM, `data/finer/answers/<lvlm>/<dataset>.parquet`.

An LVLM is an OpenAI-compatible chat endpoint, or a checkpoint that `transformers serve` serves meanwhile. Every answer
is logged as it arrives, keyed by what was asked, so that an interrupted run continues and nothing is paid twice.
"""

from __future__ import annotations

from contextlib import nullcontext

from stages.common.errors import UserError, run
from stages.common.responses import read_log
from stages.finer import paths
from stages.finer.ask.ask_lvlm import _connection, _open, all_questions, ask_dataset, find_lvlm
from stages.finer.cli import parse_finer_job


def main() -> None:
    job = parse_finer_job("finer.ask", __doc__, "lvlm")
    questions, problems = all_questions(job)
    lvlm = find_lvlm(job)
    folder = paths.answers(job.lvlm, "x").parent
    for stale in folder.glob("*.parquet"):
        if stale.stem not in job.finer.datasets:
            stale.unlink()
    waiting = any(_open(own, lvlm, read_log(paths.responses(job.lvlm, dataset))) for dataset, own in questions.items())
    with _connection(job, lvlm) if waiting else nullcontext() as connection:
        for dataset, own in questions.items():
            print(ask_dataset(job, lvlm, dataset, own, connection), flush=True)
    if problems:
        raise UserError("; ".join(problems))


if __name__ == "__main__":
    run(main)
