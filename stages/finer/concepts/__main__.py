"""concepts: what is visible of each class -> `descriptions/<dataset>/attributes.json` and `finer.json`, for `refine`.

An attribute file that this stage did not write is used as it is. Otherwise a language model is asked (FINER, arXiv
2402.16315, section 3), with the text of the class in `descriptions/<dataset>/concepts.jsonl` if there is one. Every
answer is logged, so that none is paid for twice.
"""

from __future__ import annotations

from stages.common.errors import run
from stages.finer.cli import parse_finer_job
from stages.finer.concepts.attribute_files import make_concepts


def main() -> None:
    job = parse_finer_job("finer.concepts", __doc__, "dataset")
    print(make_concepts(job))


if __name__ == "__main__":
    run(main)
