"""Ask an LLM to describe the classes of a data set, unless their descriptions exist.

    python -m stages.describe --dataset D [--source S]      all sources of the data set, or one
    python -m stages.describe --estimate [--dataset D] [--source S]    what is missing and its cost; sends nothing

Reads `data/D/classes.parquet` and `descriptions/prompts/S.yaml`, writes `descriptions/D/S.json` and the response log
`data/D/responses/S.jsonl`. OPENAI_BASE_URL and OPENAI_API_KEY name the
endpoint, which may be any that speaks OpenAI's protocol.
"""

from __future__ import annotations

import argparse
import sys

from stages.common import paths
from stages.common.cli import check_key, parse_job
from stages.common.errors import run
from stages.common.locks import hold
from stages.common.params import load_params
from stages.common.settings import write_settings
from stages.describe.estimate import print_estimate
from stages.describe.free import check_before_paying
from stages.describe.make import describe


def main() -> None:
    if "--estimate" in sys.argv[1:]:
        _estimate()
        return
    about = "Class descriptions from an LLM, or from files that are there."
    job = parse_job("describe", about, "dataset", extend=_source, locks_itself=True)
    write_settings(job.params, job.dataset, "sources")
    if job.options.source is not None:
        check_key("sources", job.options.source, job.params.sources)
    # DVC expects both folders, even if no source is wanted.
    paths.descriptions_folder(job.dataset).mkdir(parents=True, exist_ok=True)
    paths.responses_folder(job.dataset).mkdir(parents=True, exist_ok=True)
    sources = [job.options.source] if job.options.source else list(job.params.sources)
    check_before_paying(job.dataset, sources)
    for source in sources:
        hold("describe", job.dataset, source)
        describe(job.dataset, source, job.params.describe)


def _source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", help="a key of `sources` in params.yaml; all of the data set's where left out")


def _estimate() -> None:
    parser = argparse.ArgumentParser("python -m stages.describe", description="What asking would cost; sends nothing.")
    parser.add_argument("--estimate", action="store_true", required=True)
    parser.add_argument("--dataset", help="a key of `datasets` in params.yaml; all of them where left out")
    parser.add_argument("--source", help="a key of `sources` in params.yaml; all of them where left out")
    options, params = parser.parse_args(), load_params()
    for section, key, known in (
        ("datasets", options.dataset, params.datasets),
        ("sources", options.source, params.sources),
    ):
        if key is not None:
            check_key(section, key, known)
    print_estimate(params, options.dataset, options.source)


if __name__ == "__main__":
    run(main)
