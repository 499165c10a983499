"""concepts: what is visible of each class, `descriptions/<dataset>/attributes.json` and, as a source for `refine`,
`descriptions/<dataset>/finer.json`.

A file of attributes that is there and that this stage did not write is used as it is. Otherwise a language model is
asked (FINER, arXiv 2402.16315, section 3), with the concept's text where `descriptions/<dataset>/concepts.jsonl` has
one; every answer is logged, so that none is paid twice.
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
