"""toy: drawings of birds, and the demo's species in words -> `data/finer/models/toy`, a tiny LLaVA-architecture model.

First the vision tower learns to see. Then the tower is frozen, as in LLaVA, and the projector and the language model
learn to answer. An interrupted run continues where it last saved.
"""

from __future__ import annotations

from stages.common.errors import run
from stages.common.optional import import_optional
from stages.finer import paths
from stages.finer.cli import parse_finer_job


def main() -> None:
    params = parse_finer_job("demo.toy", __doc__).params
    import_optional("transformers", "toy")
    from stages.demo.toy.train import build_toy

    print(build_toy(params, paths.MODELS / "toy"))


if __name__ == "__main__":
    run(main)
